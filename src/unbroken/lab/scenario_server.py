"""A scenario that is performed for one client under test: what the client is given, and the verdict on it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from unbroken.lab.certificate import Authority
from unbroken.lab.fault import Fault
from unbroken.lab.record import RecordedRequest
from unbroken.lab.scenario import Scenario, find_scenario, load_scenario
from unbroken.lab.scenario_file import ANSWERED
from unbroken.lab.verdict import Baseline, ClientRun, ClientVerdict, generation_calls, judge

DUMMY_KEY = "sk-lab-needs-no-key"
"""The value of a client's key variables: programs do not start without one."""

UNNOTED = {"UNBROKEN_JOURNAL": "false"}
"""Has Unbroken itself note none of the faults in its user's journal, where they would be taken for the path's."""

_HERE = "127.0.0.1,localhost"

Part = Scenario | Fault | str | Path | None
"""A scenario, its name or its file; or one attempt's fault, the words for it, or None."""


class ScenarioServer:
    """The server of a scenario, as a context manager, with what a test of a client needs.

    Args:
        scenario: what happens.
        folder: makes the folder for the files of TLS; called if the scenario has TLS.
        before: how many generation calls are answered well before the first that counts.
        paths: variables from which clients take a base URL, and the path of each.
        keys: variables from which clients take a key.

    Attributes:
        scenario: as above.
        ca_file: the authority that a client is to trust; None without TLS.
    """

    def __init__(
        self,
        scenario: Scenario,
        folder: Callable[[], Path],
        *,
        before: int = 0,
        paths: Mapping[str, str] | None = None,
        keys: Collection[str] = (),
    ) -> None:
        self.scenario = scenario
        self.ca_file: Path | None = None
        self._before = before
        self._paths = paths or {}
        self._keys = keys
        self._started = 0.0
        authority = Authority(folder()) if scenario.tls else None
        if authority:
            self.ca_file = authority.file
        context = authority.server_context() if authority else None
        self._authority = authority
        self._upstream = scenario.upstream(before=before, ssl_context=context)

    def __enter__(self) -> Self:
        self._upstream.start()
        self._started = time.monotonic()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._upstream.close()

    @property
    def base_url(self) -> str:
        """The base URL as OpenAI's clients expect it: with ``/v1``."""
        return self._upstream.url

    @property
    def origin(self) -> str:
        """The base URL as Anthropic's and Google's clients expect it: without a version."""
        return self._upstream.origin

    @property
    def answer(self) -> str:
        """The text of the answer where nothing goes wrong."""
        return "".join(self.scenario.answer.tokens)

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request that has come, in order."""
        return self._upstream.requests

    @property
    def calls(self) -> list[RecordedRequest]:
        """Those of them that are generation calls."""
        return generation_calls(self.requests)

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead a program here: base URLs, keys of no worth, no proxy, and whom to trust."""
        trusting = self._authority.environment() if self._authority else {}
        urls = {name: self.origin + path for name, path in self._paths.items()}
        here = {**dict.fromkeys(("NO_PROXY", "no_proxy"), _HERE), **UNNOTED}
        return {**urls, **dict.fromkeys(self._keys, DUMMY_KEY), **here, **trusting}

    def run(self, client: Callable[[str], object]) -> ClientVerdict:
        """Run a client in this process, and judge it.

        Args:
            client: takes the base URL and returns what it tells its user; an exception is a loud failure.
        """
        try:
            answer = client(self.base_url)
        except Exception as error:  # noqa: BLE001 - any exception is the client's way to fail loudly
            return self.verdict(error=error)
        return self.verdict(str(answer))

    def verdict(
        self,
        answer: str | subprocess.CompletedProcess[Any] = "",
        *,
        error: BaseException | None = None,
        exit_code: int | None = 0,
        complaints: str = "",
    ) -> ClientVerdict:
        """Judge what a client has made of the scenario.

        Args:
            answer: what it told its user; or the finished process of a program, with its output.
            error: the exception with which it failed, if it did: a loud failure.
            exit_code: that of a program; None: it was still running, and was ended.
            complaints: what else it said, such as stderr.

        Raises:
            ValueError: the scenario has an answer of its own, by which nothing can be told.
        """
        if isinstance(answer, subprocess.CompletedProcess):
            exit_code, complaints = answer.returncode, _text(answer.stderr)
            answer = _text(answer.stdout)
        if error is not None:
            exit_code, complaints = exit_code or 1, complaints or repr(error)
        run = ClientRun(answer, exit_code, time.monotonic() - self._started, tuple(self.requests), complaints)
        return judge(self.scenario, run, Baseline(before=self._before))


def run_scenario(scenario: Scenario, client: Callable[[str], object]) -> ClientVerdict:
    """Run a client in this process against a scenario, and judge it. It has no time limit here.

    Args:
        scenario: what happens to it. Over TLS use `ScenarioServer`, which has the authority to trust.
        client: takes the server's base URL (``http://.../v1``) and returns what it tells its user; an exception is a
            loud failure.

    Raises:
        ValueError: the scenario has TLS.
    """
    if scenario.tls:
        raise ValueError(f"the scenario {scenario.name} has TLS: use ScenarioServer")
    with ScenarioServer(scenario, Path) as server:
        return server.run(client)


def scenario_of(parts: Sequence[Part], **fields: Any) -> Scenario:
    """Return the scenario that a test names.

    Args:
        parts: a single scenario, name or file; or the fault of each attempt, as its words, as a `Fault`, or None.
        fields: further arguments of `Scenario`, where faults are named.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is no such scenario, or no such fault.
    """
    first = parts[0] if parts else "nothing"
    if isinstance(first, Scenario):
        found = first
    elif isinstance(first, Path) or (isinstance(first, str) and first.endswith(".toml")):
        found = load_scenario(first)
    elif isinstance(first, str) and "@" not in first and first != ANSWERED:
        found = find_scenario(first)
    else:
        return Scenario(fields.pop("name", "test"), faults=[_fault(part) for part in parts], **fields)
    if len(parts) > 1 or fields:
        raise ValueError("a scenario stands alone; faults, and what belongs to them, are given without one")
    return found


def _fault(part: Part) -> Fault | str | None:
    if isinstance(part, (Scenario, Path)):
        raise ValueError("a scenario stands alone, without faults beside it")
    return None if part == ANSWERED else part


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
