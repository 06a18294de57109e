"""The real SDKs collect the turn whose connection to the relay was cut: by their own retries, or asked again."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack

import pytest

from real.parts import missing
from real_clients.running import NODE_SDKS
from relay.kept.clients import KEY, TEXT, Relays
from sdks import matrix
from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.proxy import CuttingProxy
from waiting import poll

PYTHON = {
    "openai": """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2])
messages = [{"role": "user", "content": "?"}]
stream = client.chat.completions.create(model="lab", messages=messages, stream=True)
print("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))
""",
    "openai, not streamed": """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2])
messages = [{"role": "user", "content": "?"}]
print(client.chat.completions.create(model="lab", messages=messages).choices[0].message.content)
""",
    "anthropic": """
import sys, anthropic
client = anthropic.Anthropic(base_url=sys.argv[1], api_key=sys.argv[2])
messages = [{"role": "user", "content": "?"}]
with client.messages.stream(model="lab", max_tokens=9, messages=messages) as stream:
    print("".join(stream.text_stream))
""",
}

NODE = {
    "openai": """
const { OpenAI } = require("openai");
const [baseURL, apiKey] = process.argv.slice(1);
(async () => {
  const client = new OpenAI({ baseURL: baseURL + "/v1", apiKey });
  const messages = [{ role: "user", content: "?" }];
  let text = "";
  for await (const chunk of await client.chat.completions.create({ model: "lab", messages, stream: true }))
    text += chunk.choices[0]?.delta.content ?? "";
  console.log(text);
})();
""",
    "openai, not streamed": """
const { OpenAI } = require("openai");
const [baseURL, apiKey] = process.argv.slice(1);
(async () => {
  const client = new OpenAI({ baseURL: baseURL + "/v1", apiKey });
  const messages = [{ role: "user", content: "?" }];
  console.log((await client.chat.completions.create({ model: "lab", messages })).choices[0].message.content);
})();
""",
    "anthropic": """
const { Anthropic } = require("@anthropic-ai/sdk");
const [baseURL, apiKey] = process.argv.slice(1);
(async () => {
  const client = new Anthropic({ baseURL, apiKey });
  const messages = [{ role: "user", content: "?" }];
  console.log(await client.messages.stream({ model: "lab", max_tokens: 9, messages }).finalText());
})();
""",
}

PYTHON_AGAIN = {
    "openai": """
import sys, httpx2, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2])
messages = [{"role": "user", "content": "?"}]
def ask():
    key = {"Idempotency-Key": "my-turn-1"}
    stream = client.chat.completions.create(model="lab", messages=messages, stream=True, extra_headers=key)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
try:
    print(ask())
except (openai.APIConnectionError, httpx2.TransportError):
    print(ask())
""",
    "anthropic": """
import sys, anthropic, httpx2
client = anthropic.Anthropic(base_url=sys.argv[1], api_key=sys.argv[2])
messages = [{"role": "user", "content": "?"}]
def ask():
    key = {"Idempotency-Key": "my-turn-1"}
    with client.messages.stream(model="lab", max_tokens=9, messages=messages, extra_headers=key) as stream:
        return "".join(stream.text_stream)
try:
    print(ask())
except (anthropic.APIConnectionError, httpx2.TransportError):
    print(ask())
""",
}

NODE_AGAIN = {
    "openai": """
const { OpenAI } = require("openai");
const [baseURL, apiKey] = process.argv.slice(1);
const client = new OpenAI({ baseURL: baseURL + "/v1", apiKey });
const messages = [{ role: "user", content: "?" }];
async function ask() {
  const key = { headers: { "Idempotency-Key": "my-turn-1" } };
  let text = "";
  for await (const chunk of await client.chat.completions.create({ model: "lab", messages, stream: true }, key))
    text += chunk.choices[0]?.delta.content ?? "";
  return text;
}
ask().catch(ask).then(console.log);
""",
    "anthropic": """
const { Anthropic } = require("@anthropic-ai/sdk");
const [baseURL, apiKey] = process.argv.slice(1);
const client = new Anthropic({ baseURL, apiKey });
const messages = [{ role: "user", content: "?" }];
const key = { headers: { "Idempotency-Key": "my-turn-1" } };
const ask = () => client.messages.stream({ model: "lab", max_tokens: 9, messages }, key).finalText();
ask().catch(ask).then(console.log);
""",
}


def of(python: dict[str, str], node: dict[str, str]) -> pytest.MarkDecorator:
    """One test a program; all but the first are slow: each starts an SDK anew, and the fast lane has none of Node's."""
    cases = [("Python", name, program) for name, program in python.items()]
    cases += [("Node", name, program) for name, program in node.items()]
    return pytest.mark.parametrize(
        ("language", "program"),
        [
            pytest.param(
                language.lower(), program, id=f"{language}, {name}", marks=[pytest.mark.slow] if number else []
            )
            for number, (language, name, program) in enumerate(cases)
        ],
    )


def said_by(language: str, program: str, way: CuttingProxy) -> str:
    """Run a program, which asks through a proxy; return what it says."""
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    if language == "python":
        if not matrix.python().exists():
            missing("the SDKs are missing; `make .venv-sdks` installs them")
        command = [str(matrix.python()), "-c", program]
    else:
        node, modules = shutil.which("node"), NODE_SDKS / "node_modules"
        if not node or not (modules / "openai").exists():
            missing("Node's SDKs are missing; `make .node-sdks` installs them")
        command, environ["NODE_PATH"] = [node, "-e", program], str(modules)
    asking = [*command, f"http://127.0.0.1:{way.port}/lab", KEY]
    ran = subprocess.run(asking, capture_output=True, text=True, timeout=120, env=environ, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


@of(PYTHON, NODE)
def test_a_turn_that_was_cut_before_its_headers(
    in_memory: Relays, stack: ExitStack, language: str, program: str
) -> None:
    client = in_memory.serve(ScriptedAnswer(text=TEXT, think=1.5, think_at="before_headers"))
    way = stack.enter_context(CuttingProxy(target=("127.0.0.1", client.served.port), idle=0.3, cuts=1))
    assert said_by(language, program, way) == f"{''.join(TEXT)}\n"
    assert way.cuts_made == 1
    assert in_memory.asked_upstream == 1
    assert client.served.entry()["outcome"] in ("collected", "answered")


@pytest.mark.slow
@of(PYTHON_AGAIN, NODE_AGAIN)
def test_a_turn_that_was_cut_in_its_middle_and_is_asked_for_again_under_its_key(
    in_memory: Relays, stack: ExitStack, language: str, program: str
) -> None:
    """No SDK retries after the headers: the program does, and its second request reads the first one's turn."""
    client = in_memory.serve(ScriptedAnswer(text=TEXT, gap=0.05))
    way = stack.enter_context(CuttingProxy(target=("127.0.0.1", client.served.port), cut_after=2500, cuts=1))
    assert said_by(language, program, way) == f"{''.join(TEXT)}\n"
    assert way.cuts_made == 1
    assert in_memory.asked_upstream == 1
    poll(lambda: client.metric("collected") == 1)
