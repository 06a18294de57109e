"""The start-up side: CPU of whole processes, from their start to their end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.measure import CLIENTS, ROOT, Results, cpu_until_end, environment, interleaved
from bench.relays import server

SIDE = "start-up"
FIGURE = "ms CPU"
BARE = "python -c pass"
IMPORT = "import unbroken"
HELP = "unbroken run --help"
RUN = "unbroken run, a whole turn"
LLM_RUN = "llm, a whole turn"
OPENAI_RUN = "openai SDK, a whole turn"
EVENTS = 50
ASK_OPENAI = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none")
messages = [{"role": "user", "content": "Hello"}]
for chunk in client.chat.completions.create(model=sys.argv[2], messages=messages, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="")
"""
LLM_MODELS = "- model_id: bench\n  model_name: burst-{events}\n  api_base: {url}\n"


def commands(url: str, folder: Path) -> dict[str, list[str]]:
    """Return the commands by their names."""
    python = sys.executable
    unbroken = str(Path(python).parent / "unbroken")
    found = {
        BARE: [python, "-c", "pass"],
        IMPORT: [python, "-c", "import unbroken"],
        "import unbroken; unbroken.Client": [python, "-c", "import unbroken; unbroken.Client"],
        HELP: [unbroken, "run", "--help"],
        RUN: [unbroken, "run", "--quiet", "--no-proxy", "--base-url", url, "--model", f"burst-{EVENTS}", "Hello"],
    }
    if CLIENTS.exists():
        python = str(CLIENTS)
        (folder / "extra-openai-models.yaml").write_text(LLM_MODELS.format(url=url, events=EVENTS))
        found |= {
            "import openai": [python, "-c", "import openai"],
            OPENAI_RUN: [python, "-c", ASK_OPENAI, url, f"burst-{EVENTS}"],
            "import anthropic": [python, "-c", "import anthropic"],
            "import litellm": [python, "-c", "import litellm"],
        }
        if (llm := CLIENTS.parent / "llm").exists():
            found |= {"llm --help": [str(llm), "--help"], LLM_RUN: [str(llm), "--no-log", "-m", "bench", "Hello"]}
    return found


def measure(results: Results, rounds: int, quick: bool) -> None:
    if not CLIENTS.exists():
        results.missing["openai, llm"] = "make .venv-bench"
    with server() as ports, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        quiet = environment(LLM_USER_PATH=folder, OPENAI_API_KEY="none", LITELLM_LOCAL_MODEL_COST_MAP="True")
        del quiet["PYTHONPATH"]

        def one_round(results: Results, name: str, command: list[str]) -> None:
            running = subprocess.Popen(command, cwd=ROOT, env=quiet, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            assert running.stdout
            with running.stdout as output:
                said = output.read()
            spent = cpu_until_end(running)
            if "turn" in name and said.count(b" word") != EVENTS:
                raise RuntimeError(f"{name} said {said!r}")
            results.add(SIDE, FIGURE, name, spent / 1e3)

        named = commands(f"http://127.0.0.1:{ports.http}/v1", Path(folder))
        runs: dict[str, Callable[[], None]] = {
            name: partial(one_round, results, name, command) for name, command in named.items()
        }
        if not quick:
            for name, command in named.items():  # bytecode and pages are in memory from here on
                one_round(Results(), name, command)
        interleaved(rounds, runs, SIDE)
