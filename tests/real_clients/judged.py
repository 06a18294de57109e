"""Run one real client for one prompt, as ``unbroken lab verdict`` runs a program.

python -m real_clients.judged [--exec] NAME

The client is pointed at ``UNBROKEN_RELAY_URL``, in a home folder of its own, and what it has told its user is written
to stdout. With ``--exec`` it is started by ``unbroken exec``, whose presets know it by its name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from real_clients import running
from real_clients.clients import CLIENTS, PROGRAMS, RELAY, Client

LITELLM = Client(
    "litellm",
    "pypi litellm",
    "chat",
    ("python", "ask_litellm.py"),
    {"OPENAI_BASE_URL": f"{RELAY}/openai/v1", "OPENAI_API_KEY": "sk-lab"},
    {"work/ask_litellm.py": (PROGRAMS / "ask_litellm.py").read_text(encoding="utf-8")},
    quiet={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
)

_NAMES = {
    "curl": "curl",
    "openai (Python)": "openai SDK",
    "anthropic (Python)": "anthropic SDK",
    "Vercel AI SDK, OpenAI": "Vercel AI SDK",
    "Codex, a provider of one's own": "Codex",
    "Claude Code": "Claude Code",
    "opencode": "opencode",
    "Gemini CLI": "Gemini CLI",
    "aider": "aider",
}
"""The clients that are judged, by what the table calls them. Codex alone would try a WebSocket first."""

JUDGED = {
    **{_NAMES[client.name]: client for client in CLIENTS if client.name in _NAMES},
    "litellm": LITELLM,
}
# Its user reads the events themselves, and what an error says.
JUDGED["curl"] = replace(JUDGED["curl"], said=str, complaint=r'"error"')

TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "DENO_CERT")
"""Variables by which the lab tells a program to trust its certificate."""


def main() -> NoReturn:
    signal.signal(signal.SIGTERM, _leave)  # so that the home folder is removed
    client, origin = JUDGED[sys.argv[-1]], os.environ["UNBROKEN_RELAY_URL"]
    with tempfile.TemporaryDirectory(prefix="judged-", ignore_cleanup_errors=True) as home:
        ended = _run(client, Path(home), origin, running.EXEC if "--exec" in sys.argv else ())
    sys.stdout.write(client.said(ended.stdout))
    sys.exit(ended.returncode)


def _run(client: Client, home: Path, origin: str, before: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    def aim(text: str) -> str:
        return text.replace(RELAY, origin)

    files = {**client.files, **client.quiet_files}
    running.furnish(home, {path: aim(text) for path, text in files.items()}, running.packages_for(client))
    return subprocess.run(
        [*before, *map(aim, client.command)],
        cwd=home / "work",
        env={
            **running.environment(home),
            **client.quiet,
            **{name: aim(text) for name, text in client.environ.items()},
            **{name: os.environ[name] for name in TRUST if name in os.environ},
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
