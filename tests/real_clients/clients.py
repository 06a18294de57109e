"""The clients: how each is pointed at a relay, what it asks for one prompt, and how its answer is told from its output.

What stands in `Client.environ`, `Client.command` and `Client.files` is what a user would write, at the relay's usual
address; a run puts another address in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

RELAY = "http://127.0.0.1:8765"
OPENAI = f"{RELAY}/openai"
ANTHROPIC = f"{RELAY}/anthropic"
GOOGLE = f"{RELAY}/google"
DEEPSEEK = f"{RELAY}/deepseek"
KEY = "sk-lab"
PROMPT = "Hello?"
ANSWER = "The tide turns at nine."

PROGRAMS = Path(__file__).with_name("programs")

QWEN_SETTINGS = ".qwen/settings.json"
QWEN_QUIET = {"privacy": {"usageStatisticsEnabled": False}}
OPENCODE_CONFIG = ".config/opencode/opencode.json"
REASONIX_CONFIG = ".reasonix/config.toml"

CHAT = "POST /v1/chat/completions"
RESPONSES = "POST /v1/responses"
MESSAGES = "POST /v1/messages"
GEMINI = "POST /v1beta/models/gemini-2.5-flash:streamGenerateContent"


@dataclass(frozen=True)
class Client:
    """One client, and one way of pointing it at a relay.

    Attributes:
        name: what it is called.
        package: where it is installed from and as what; its version is the one pinned for it.
        dialect: what it speaks in the turn.
        command: the program and its arguments, for one prompt without a terminal. The program is a name that is
            installed, or "python" for the SDKs' interpreter.
        environ: the variables that a user sets.
        files: what a user writes into files, by path from the home folder.
        sends: the requests for one prompt, in order, by method and path under the base URL's ``/v1``.
        turn: which of `sends` is the turn itself; the others are titles and the like.
        quiet: variables that turn off telemetry and updates, for tests only.
        quiet_files: the same in files; they stand in the place of those that a user writes.
        said: finds the answer in what was written to stdout.
        complaint: finds words about a failure in the output of a client that exits with 0 all the same.
        after_cut: what it does by itself when the relay has told it of a cut in the middle of its answer: it asks again
            and its answer is "whole" or "doubled", or it ends with an "error".
        honours: the variables that it takes a base URL and a key from.
        note: what else its users should know, in Markdown.
    """

    name: str
    package: str
    dialect: str
    command: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    sends: tuple[str, ...] = ()
    turn: int = 0
    quiet: Mapping[str, str] = field(default_factory=dict)
    quiet_files: Mapping[str, str] = field(default_factory=dict)
    said: Callable[[str], str] = str.strip
    complaint: str = ""
    after_cut: Literal["whole", "doubled", "error"] = "error"
    honours: tuple[str, ...] = ()
    note: str = ""

    @property
    def by_environment(self) -> bool:
        """Whether variables alone point it at a relay, so that `unbroken exec` does."""
        return not any(RELAY in text for text in (*self.command, *self.files.values()))


def _program(name: str) -> dict[str, str]:
    return {f"work/{name}": (PROGRAMS / name).read_text(encoding="utf-8")}


def _said_in_events(stdout: str) -> str:
    """The text in the events of a chat completion."""
    data = [line.removeprefix("data: ") for line in stdout.splitlines() if line.startswith("data: {")]
    choices = [choice for chunk in data for choice in json.loads(chunk).get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def _said_by_aider(stdout: str) -> str:
    """What stands between aider's greeting and its bill, but for the reasoning and its own words about failures."""
    said = re.sub(r"(?s).*Repo-map: disabled|Tokens: .*", "", stdout)
    said = re.sub(r"(?s)-+\s► \*\*THINKING\*\*.*► \*\*ANSWER\*\*", "", said)
    return re.sub(r"(?s)litellm\..*?Retrying in .*? seconds\.\.\.|Empty response received.*", "", said).strip()


_OPENAI_ENVIRON = {"OPENAI_BASE_URL": f"{OPENAI}/v1", "OPENAI_API_KEY": KEY}
_ANTHROPIC_ENVIRON = {"ANTHROPIC_BASE_URL": ANTHROPIC, "ANTHROPIC_API_KEY": KEY}
_CODEX = ("codex", "exec", "--skip-git-repo-check")
_CODEX_QUIET = {".codex/config.toml": "check_for_update_on_startup = false\n\n[analytics]\nenabled = false\n"}
_GEMINI_SETTINGS = ".gemini/settings.json"
_GEMINI_AUTH = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
_GEMINI_QUIET = {"privacy": {"usageStatisticsEnabled": False}, "general": {"enableAutoUpdate": False}}
_OPENCODE_QUIET = {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
_REASONIX_PROVIDER = f"""\
default_model = "deepseek/deepseek-chat"

[[providers]]
name = "deepseek"
kind = "openai"
base_url = "{DEEPSEEK}/v1"
models = ["deepseek-chat"]
api_key_env = "DEEPSEEK_API_KEY"
"""
_OPENCODE_PROVIDER = {
    "npm": "@ai-sdk/openai-compatible",
    "options": {"baseURL": f"{OPENAI}/v1", "apiKey": KEY},
    "models": {"gpt-5": {}},
}

CLIENTS: tuple[Client, ...] = (
    Client(
        "curl",
        "curl",
        "chat",
        (
            *("curl", "-sSN", f"{OPENAI}/v1/chat/completions"),
            *("-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json", "-d"),
            json.dumps(
                {"model": "gpt-5", "max_tokens": 60, "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
            ),
        ),
        sends=(CHAT,),
        said=_said_in_events,
    ),
    Client(
        "openai (Python)",
        "pypi openai",
        "chat",
        ("python", "ask_openai.py"),
        _OPENAI_ENVIRON,
        _program("ask_openai.py"),
        sends=(CHAT,),
        honours=("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    ),
    Client(
        "openai (Python), Responses",
        "pypi openai",
        "responses",
        ("python", "ask_openai_responses.py"),
        _OPENAI_ENVIRON,
        _program("ask_openai_responses.py"),
        sends=(RESPONSES,),
        honours=("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    ),
    Client(
        "anthropic (Python)",
        "pypi anthropic",
        "anthropic",
        ("python", "ask_anthropic.py"),
        _ANTHROPIC_ENVIRON,
        _program("ask_anthropic.py"),
        sends=(MESSAGES,),
        honours=("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
    ),
    Client(
        "openai (Node)",
        "npm openai",
        "chat",
        ("node", "ask_openai.mjs"),
        _OPENAI_ENVIRON,
        _program("ask_openai.mjs"),
        sends=(CHAT,),
        honours=("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    ),
    Client(
        "Vercel AI SDK, OpenAI",
        "npm @ai-sdk/openai",
        "responses",
        ("node", "ask_vercel.mjs"),
        _OPENAI_ENVIRON,
        _program("ask_vercel.mjs"),
        sends=(RESPONSES,),
        complaint=r"vercel\.ai\.error",
        honours=("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    ),
    Client(
        "Vercel AI SDK, compatible",
        "npm @ai-sdk/openai-compatible",
        "chat",
        ("node", "ask_vercel_compatible.mjs"),
        _OPENAI_ENVIRON,
        _program("ask_vercel_compatible.mjs"),
        sends=(CHAT,),
        complaint=r"vercel\.ai\.error",
        note="This package reads no variables: `baseURL` and `apiKey` are what the program says, here from the usual"
        " ones.",
    ),
    Client(
        "Codex",
        "npm @openai/codex",
        "responses",
        (*_CODEX, "-c", f'openai_base_url="{OPENAI}/v1"', "-m", "gpt-5", PROMPT),
        {"CODEX_API_KEY": KEY},
        # First it tries a WebSocket. A 426 tells it at once that there is none; anything else costs it seven tries.
        sends=("GET /v1/responses", RESPONSES),
        after_cut="whole",
        turn=1,
        quiet_files=_CODEX_QUIET,
        honours=("CODEX_API_KEY",),
        note="It has no variable for the base URL (`OPENAI_BASE_URL` means nothing to it), so `unbroken exec` cannot"
        " redirect it: put `openai_base_url` into `~/.codex/config.toml`, or say it with `-c`. It tries a WebSocket"
        " first; the relay tells it at once to ask over HTTP, and so did the server when it was alone.",
    ),
    Client(
        "Codex, a provider of one's own",
        "npm @openai/codex",
        "responses",
        (
            *_CODEX,
            *("-c", 'model_provider="unbroken"'),
            *("-c", f'model_providers.unbroken={{name="Unbroken", base_url="{OPENAI}/v1", env_key="OPENAI_API_KEY"}}'),
            *("-m", "gpt-5", PROMPT),
        ),
        {"OPENAI_API_KEY": KEY},
        sends=(RESPONSES,),
        after_cut="whole",
        quiet_files=_CODEX_QUIET,
        honours=("what `env_key` names",),
        note="The same two settings may stand in `~/.codex/config.toml`. With `--hold`, raise its idle timer, which"
        " heartbeats do not feed: `stream_idle_timeout_ms = 1800000` beside them.",
    ),
    Client(
        "Claude Code",
        "npm @anthropic-ai/claude-code",
        "anthropic",
        ("claude", "-p", PROMPT),
        _ANTHROPIC_ENVIRON,
        sends=(MESSAGES,),
        after_cut="whole",
        quiet={"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"},
        honours=("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        note="The model that it asks for does not continue a message of the assistant: `--after-output continue`"
        " changes nothing, and it asks again by itself.",
    ),
    Client(
        "opencode",
        "npm opencode-ai",
        "responses",
        ("opencode", "run", "-m", "openai/gpt-5", PROMPT),
        _OPENAI_ENVIRON,
        sends=(RESPONSES, RESPONSES),
        after_cut="whole",
        turn=1,  # after the title
        quiet=_OPENCODE_QUIET,
        honours=("OPENAI_BASE_URL", "OPENAI_API_KEY"),
        note="It asks for a title first, of a smaller model. What is cut here is the turn.",
    ),
    Client(
        "opencode, Anthropic",
        "npm opencode-ai",
        "anthropic",
        ("opencode", "run", "-m", "anthropic/claude-sonnet-4-5", PROMPT),
        _ANTHROPIC_ENVIRON,
        sends=("POST /messages", "POST /messages"),
        after_cut="whole",
        turn=1,
        quiet=_OPENCODE_QUIET,
        honours=("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
        note="It expects `/v1` at the end of `ANTHROPIC_BASE_URL`, where Anthropic's own programs do not. The relay"
        " takes both.",
    ),
    Client(
        "opencode, any provider",
        "npm opencode-ai",
        "chat",
        ("opencode", "run", "-m", "unbroken/gpt-5", PROMPT),
        files={OPENCODE_CONFIG: json.dumps({"provider": {"unbroken": _OPENCODE_PROVIDER}})},
        sends=(CHAT, CHAT),
        after_cut="whole",
        turn=1,
        quiet=_OPENCODE_QUIET,
        note="For every server that speaks chat completions.",
    ),
    Client(
        "Gemini CLI",
        "npm @google/gemini-cli",
        "gemini",
        ("gemini", "--skip-trust", "-m", "gemini-2.5-flash", "-p", PROMPT),
        {"GOOGLE_GEMINI_BASE_URL": GOOGLE, "GEMINI_API_KEY": KEY},
        # Without an authentication that was chosen it makes one up for a base URL, and then refuses it.
        {_GEMINI_SETTINGS: json.dumps(_GEMINI_AUTH)},
        sends=(GEMINI,),
        quiet_files={_GEMINI_SETTINGS: json.dumps({**_GEMINI_AUTH, **_GEMINI_QUIET})},
        honours=("GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY"),
        note="With `GOOGLE_GEMINI_BASE_URL` set it refuses to start (“Invalid auth method selected”), unless its"
        " settings say that a key is used. It has written them itself where a key was chosen once.",
    ),
    Client(
        "Qwen Code",
        "npm @qwen-code/qwen-code",
        "chat",
        ("qwen", "-p", PROMPT),
        {**_OPENAI_ENVIRON, "OPENAI_MODEL": "gpt-5"},
        sends=(CHAT, CHAT),  # after the answer it has its memory brought up to date
        after_cut="whole",
        quiet_files={QWEN_SETTINGS: json.dumps(QWEN_QUIET)},
        honours=("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"),
        note="After the answer it has its memory brought up to date, which is a second turn. After a cut in the middle"
        " of an answer it asks the model to go on from there, and puts the two together. The server of these tests goes"
        " on exactly; a model may repeat itself.",
    ),
    Client(
        "Reasonix",
        "npm reasonix",
        "chat",
        ("reasonix", "-p", PROMPT),
        {"DEEPSEEK_API_KEY": KEY},
        {REASONIX_CONFIG: _REASONIX_PROVIDER},
        sends=(CHAT,),
        after_cut="whole",
        honours=("what `api_key_env` names",),
        note="It has no variable for the base URL: what its configuration says of a provider is all.",
    ),
    Client(
        "aider",
        "pypi aider-chat",
        "chat",
        ("aider", "--model", "openai/gpt-5", "--no-git", "--yes-always", "--message", PROMPT),
        {"OPENAI_API_BASE": f"{OPENAI}/v1", "OPENAI_API_KEY": KEY},
        sends=(CHAT,),
        after_cut="doubled",
        quiet={
            "AIDER_ANALYTICS": "false",
            "AIDER_CHECK_UPDATE": "false",
            "AIDER_SHOW_RELEASE_NOTES": "false",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
        said=_said_by_aider,
        complaint=r"litellm\.\w+Error|Empty response received",
        honours=("OPENAI_API_BASE", "OPENAI_BASE_URL", "OPENAI_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
        note="After a cut in the middle of an answer it shows the error and asks again; what it had shown stays there,"
        " whatever it was told. `--hold answer` keeps it from that.",
    ),
)
