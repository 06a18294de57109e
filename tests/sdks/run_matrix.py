"""Ask with one SDK in some cases, with and without Unbroken, and say what came of it, as JSON on stdout.

    python run_matrix.py openai "nothing goes wrong" "400" ...

It runs in the second virtual environment, against the lab in this very process.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import json
import logging
import ssl
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from sdks.callers import Face  # noqa: E402
from sdks.cases import CASES, IDLE, Case  # noqa: E402
from unbroken import Policy, UnbrokenError  # noqa: E402
from unbroken.lab import ScriptedAnswer, Upstream  # noqa: E402

POLICY = Policy(backoff_initial=0.01, settle_timeout=0.2)
PATIENCE = 0.5
"""Seconds after which a program that waits in silence is said to hang."""
LIMIT = 20.0
"""Seconds after which any other does."""


@dataclasses.dataclass
class Outcome:
    """What a program came to.

    Attributes:
        outcome: "complete", "truncated" (not all of the text, and no error), "doubled" (other text), "error" or
            "hangs" (until a timeout of its own, mostly ten minutes).
        requests: how many the server got.
        error: the error's class.
        expected: whether that is an error of the SDK or of httpx.
        message: what it says.
        causes: how many errors stand between it and Unbroken's, which is the last; 0 if it is not among its causes.
    """

    outcome: str
    requests: int = 0
    error: str = ""
    expected: bool = True
    message: str = ""
    causes: int = 0


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    ssl.create_default_context = functools.cache(ssl.create_default_context)  # the lab has no TLS, and this takes long
    _, sdk, *rows = sys.argv
    with contextlib.redirect_stdout(sys.stderr):
        faces = importlib.import_module(f"sdks.callers.{sdk.replace('-', '_')}_sdk").FACES
        found = {
            "version": importlib.metadata.version("pydantic-ai-slim" if sdk == "pydantic-ai" else sdk),
            "faces": {face.name: dict(run_face(face, rows)) for face in faces},
        }
    json.dump({sdk: found}, sys.stdout)


def run_face(face: Face, rows: Sequence[str]) -> Iterator[tuple[str, Any]]:
    run_cell(face, CASES[0], None, limit=120)  # SDKs import what they need when they need it, which takes long
    for case in CASES:
        if case.name in rows and (face.streams or case.whole):
            policy = dataclasses.replace(POLICY, idle_timeout=IDLE) if case.is_silence else POLICY
            yield (
                case.name,
                {
                    "with": dataclasses.asdict(run_cell(face, case, policy)),
                    "without": dataclasses.asdict(run_cell(face, case, None)),
                },
            )


def run_cell(face: Face, case: Case, policy: Policy | None, limit: float = LIMIT) -> Outcome:
    found: list[Outcome] = []
    with Upstream(answer=ScriptedAnswer(text=face.text), faults=[case.fault_in(face.dialect)]) as upstream:
        thread = threading.Thread(target=lambda: found.append(ask(face, upstream.origin, policy)), daemon=True)
        thread.start()
        thread.join(PATIENCE if case.is_silence and policy is None else limit)
        outcome = found[0] if found else Outcome("hangs")
        requests = len(upstream.requests)
    thread.join(LIMIT)  # its connections are closed now
    return dataclasses.replace(outcome, requests=requests)


def ask(face: Face, origin: str, policy: Policy | None) -> Outcome:
    try:
        answer = face.ask(origin, policy)
        text = asyncio.run(awaited(answer)) if inspect.isawaitable(answer) else answer
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the program gets
        homes = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        name = f"{type(error).__module__.partition('.')[0]}.{type(error).__name__}"
        expected = not homes.isdisjoint({"httpx", "httpx2", *face.errors})
        return Outcome("error", error=name, expected=expected, message=str(error), causes=causes_of(error))
    if text == face.text:
        return Outcome("complete")
    return Outcome("truncated" if face.text.startswith(text) else "doubled", error=repr(text))


def causes_of(error: BaseException) -> int:
    """How many steps along its causes lead from an error to Unbroken's; 0 if none does."""
    steps, cause = 0, error.__cause__ or error.__context__
    while cause:
        steps += 1
        if isinstance(cause, UnbrokenError):
            return steps
        cause = cause.__cause__ or cause.__context__
    return 0


async def awaited(answer: Any) -> Any:
    return await answer


if __name__ == "__main__":
    main()
