"""The bench: an upstream on script, a relay before it, and a process of the second virtual environment that asks."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from differential.streams import WAYS, Case, Found, Read
from differential.upstream import ScriptedUpstream
from real.parts import missing
from relay.serving import Served, settings_to
from sdks import matrix
from unbroken.core.policy import Policy

ASK = Path(__file__).with_name("ask.py")
POLICY = Policy(replays=1, retries=1, backoff_initial=0.0, settle_timeout=0.2)


class Bench:
    """Asks about cases. Use as a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        if not matrix.python().exists():
            missing("the SDKs are missing; `make .venv-sdks` installs them")
        self._upstream = ScriptedUpstream()
        self._stack.enter_context(self._upstream.server)
        self._relay = self._stack.enter_context(Served(settings_to(self._upstream.server.url, policy=POLICY)))
        environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        command = [matrix.python(), ASK]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
        self._stack.enter_context(self._process)
        self._stack.callback(self._process.kill)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def ask(self, cases: Sequence[Case], ways: Sequence[str] = WAYS) -> list[Found]:
        """What each way reads in each case; of a way that is not asked for nothing is read."""
        keys = [str(next(self._numbers)) for _ in cases]
        for key, case in zip(keys, cases, strict=True):
            self._upstream.script(key, case.stream, case.again)
        asked = [self._described(case, key, ways) for key, case in zip(keys, cases, strict=True)]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that asks has ended"
        for key in keys:
            self._upstream.forget(key)
        return [self._found(key, outcomes) for key, outcomes in zip(keys, json.loads(line), strict=True)]

    def _described(self, case: Case, key: str, ways: Sequence[str]) -> dict[str, object]:
        return {
            "dialect": case.dialect,
            "request": dict(case.request),
            "key": key,
            "upstream": self._upstream.server.url,
            "relay": f"{self._relay.origin}/lab",
            "ways": ways,
        }

    def _found(self, key: str, outcomes: dict[str, dict[str, object]]) -> Found:
        def read(way: str) -> Read:
            outcome = outcomes.get(way, {"objects": (), "error": None})
            return Read(tuple(outcome["objects"]), outcome["error"], len(self._upstream.requests[f"{key} {way}"]))

        return Found(*map(read, WAYS))
