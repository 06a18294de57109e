"""Real clients behind the relay, before a real model: llama.cpp's server with SmolLM2.

Where an agent's own instructions are longer than this model can read, it gets shorter ones, by its own options.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from real_clients import running
from real_clients.clients import CLIENTS, OPENCODE_CONFIG, PROMPT, Client
from unbroken.lab.local_model import LocalModel

pytestmark = [pytest.mark.slow, pytest.mark.agents, pytest.mark.xdist_group("local model")]

BRIEFLY = "You are a helpful assistant."
TOKENS = 60

NOT_SERVED = {
    "Gemini CLI": "llama.cpp does not speak Gemini's dialect",
    "Vercel AI SDK, OpenAI": "it does not take llama.cpp's response.output_item.done for valid",
    "opencode": "as it is, it asks for a title besides, with a model of its own, which takes this model half a minute",
    "opencode, Anthropic": "the same",
    "Codex": "the same as with a provider of one's own",
}
"""Who is left out here, and why."""


CODEX_BRIEFLY = (
    *("-c", 'model_instructions_file="brief.md"', "-c", 'web_search="disabled"'),
    *("-c", "include_permissions_instructions=false", "-c", "include_environment_context=false"),
    *("-c", "include_apps_instructions=false", "-c", "skills.include_instructions=false"),
)


def briefly(client: Client) -> Client:
    """The client with short instructions and short answers, as far as its options go."""
    match client.name:
        case "Claude Code":
            return replace(
                client, command=("claude", "--bare", "--system-prompt", BRIEFLY, "--tools", "", "-p", PROMPT)
            )
        case "Codex, a provider of one's own":
            command = (*client.command[:-1], *CODEX_BRIEFLY, PROMPT)
            return replace(client, command=command, files={"work/brief.md": BRIEFLY})
        case "opencode, any provider":
            models = {"gpt-5": {"limit": {"context": 8000, "output": TOKENS}}}
            agent = {"build": {"prompt": BRIEFLY, "tools": {"*": False}}, "title": {"disable": True}}
            config = json.loads(client.files[OPENCODE_CONFIG])
            config["provider"]["unbroken"]["models"] = models
            return replace(client, files={OPENCODE_CONFIG: json.dumps({**config, "agent": agent})})
        case "Qwen Code":
            command = ("qwen", "--bare", "--system-prompt", BRIEFLY, "-p", PROMPT)
            return replace(client, command=command, quiet={"QWEN_CODE_MAX_OUTPUT_TOKENS": str(TOKENS)})
        case "aider":
            settings = f"- name: openai/gpt-5\n  edit_format: ask\n  extra_params:\n    max_tokens: {TOKENS}\n"
            return replace(client, files={".aider.model.settings.yml": settings})
        case _:
            return client


SERVED = [briefly(client) for client in CLIENTS if client.name not in NOT_SERVED]


@pytest.mark.parametrize("client", SERVED, ids=[client.name for client in SERVED])
def test_a_real_model_answers_it(client: Client, agent: Client, local_model: LocalModel, tmp_path: Path) -> None:
    with running.relay(tmp_path, local_model.url.removesuffix("/v1")) as relay:
        ran = running.run(agent, running.through(relay))
    [turn] = relay.requests()
    assert (turn["status"], turn["attempts"]) == (200, 1), ran
    assert turn["first_output"], ran
    if ran.code is None:  # so small a model now and then does not stop talking, and the client was ended for it
        assert turn["outcome"] == "left"
    else:
        assert (turn["outcome"], ran.code) == ("answered", 0), ran
        assert agent.said(ran.stdout), ran
