"""Ask through relays with one SDK, several times at once, and say what came of it, as JSON on stdout.

    python ask_with_sdk.py openai < [{"face": "openai chat", "case": "...", "origin": "http://..."}, ...]

It runs in the second virtual environment; the relays and what is behind them run where it was started.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]


def main() -> None:
    warnings.simplefilter("ignore")
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        faces = importlib.import_module(f"sdks.callers.{sys.argv[1].replace('-', '_')}_sdk").FACES
        by_name = {face.name: face for face in faces}
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda one: one | ask(by_name[one["face"]], one["origin"]), asked))
    json.dump(found, sys.stdout)


def ask(face: Any, origin: str) -> dict[str, Any]:
    """The text that came, or the error and what it says."""
    try:
        return {"text": face.ask(origin, None), "error": "", "said": ""}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the program gets
        return {"text": None, "error": f"{type(error).__module__}.{type(error).__name__}", "said": str(error)}


if __name__ == "__main__":
    main()
