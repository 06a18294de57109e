"""Scenarios: seeded, replayable scripts of faults, by attempt and place, as Python and as TOML.

A scenario file is small::

    about = "The connection is reset twice before the response begins."
    faults = ["rst@before_headers", "rst@before_headers"]

The words are those of ``unbroken lab upstream --fault``, read by the same parser.
"""

from __future__ import annotations

import random
import re
import ssl
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from unbroken.core.dialects import DIALECTS
from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.fault import Fault, parse_fault, retry_after
from unbroken.lab.numbered import TEXT
from unbroken.lab.scenario_file import read_table
from unbroken.lab.upstream import Upstream

MOST_ATTEMPTS = 1000
"""How many attempts a script may name."""


_MINUTE = 60.0
"""Seconds: clients do not wait longer, whatever ``Retry-After`` says."""


def numbered_answer() -> ScriptedAnswer:
    """Return the answer of a scenario that names none: numbered words, whose truncation and doubling can be seen."""
    return ScriptedAnswer(text=TEXT)


@dataclass(frozen=True)
class Scenario:
    """A script of what goes wrong in one turn: a fault for each attempt, the answer, and the transport.

    Only generation calls meet the faults, each the next one; after the last every call is answered well. With `draw`
    the faults are drawn, at random but by `seed`: the same scenario always gives the same script.

    Args:
        name: its name; in the catalogue the name of its file.
        about: one sentence that says what goes wrong.
        faults: by attempt: a fault, the words for one (``"rst@after_role"``), or None for an attempt that is answered.
        draw: how many attempts meet a fault that is drawn from `faults`; None: each of `faults` once, in order.
        seed: of the draw.
        dialects: the names of the dialects in which it can happen; empty: in all of them.
        http: the version of HTTP that is offered; "2" needs `tls`.
        tls: whether the server speaks TLS.
        answer: the answer where nothing goes wrong.
        retryable: whether a client may ask again after these faults; None: as their statuses say
            (`unbroken.lab.judge`).
        patience: seconds that a client must be given before anything can be said of it: it takes a shorter silence for
            that of a model that thinks.
        told: a pattern of :mod:`re`. Where a program's output has it, the program has told its user how the answer
            ended, whatever its exit code; ``""``: only an exit code tells.

    Raises:
        ValueError: a fault, a dialect, the transport or the pattern is not possible.
    """

    name: str
    about: str = ""
    faults: Sequence[Fault | str | None] = ()
    draw: int | None = None
    seed: int = 0
    dialects: Sequence[str] = ()
    http: Literal["1.1", "2"] = "1.1"
    tls: bool = False
    answer: ScriptedAnswer = field(default_factory=numbered_answer)
    retryable: bool | None = None
    patience: float = 0.0
    told: str = ""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.dialects if name not in DIALECTS.names]:
            raise ValueError(f"unknown dialect {unknown[0]!r}; the dialects are: {', '.join(DIALECTS.names)}")
        if self.http == "2" and not self.tls:
            raise ValueError("HTTP/2 is offered over TLS only: set tls")
        if self.draw is not None and not (self.faults and 0 < self.draw <= MOST_ATTEMPTS):
            raise ValueError(f"draw needs faults, and a number from 1 to {MOST_ATTEMPTS}")
        if len(self.faults) > MOST_ATTEMPTS:
            raise ValueError(f"a script names at most {MOST_ATTEMPTS} attempts")
        try:
            re.compile(self.told)
        except re.error as error:
            raise ValueError(f"told is no pattern: {error}") from None
        for fault in self.script:
            self._check(fault)

    @property
    def script(self) -> tuple[Fault | None, ...]:
        """The fault of the first attempt, the second, and so on; None: that attempt is answered."""
        faults = tuple(parse_fault(fault) if isinstance(fault, str) else fault for fault in self.faults)
        if self.draw is None:
            return faults
        return tuple(random.Random(self.seed).choices(faults, k=self.draw))

    @property
    def silence(self) -> float:
        """Seconds that pass in the script without the client's doing, if it waits as it is told: less than a minute."""
        told = [retry_after(fault) for fault in self.script]
        paused = [fault.seconds or 0.0 for fault in self.script if fault]
        return self.answer.think + sum(paused) + sum(wait for wait in told if wait < _MINUTE)

    def suits(self, dialect: str) -> bool:
        """Return whether it can happen to a call of this dialect."""
        return not self.dialects or dialect in self.dialects

    def upstream(self, *, before: int = 0, ssl_context: ssl.SSLContext | None = None) -> Upstream:
        """Return a server that performs the scenario, to be used as a context manager.

        Args:
            before: how many generation calls are answered well before the first that counts: programs have some of
                their own, for a title and the like.
            ssl_context: the server's side of TLS, if `tls` is set.

        Raises:
            ValueError: the scenario needs TLS, and there is no `ssl_context`.
        """
        if self.tls and ssl_context is None:
            raise ValueError(f"the scenario {self.name} needs an ssl_context")
        return Upstream(
            faults=[*[None] * before, *self.script],
            answer=self.answer,
            ssl_context=ssl_context if self.tls else None,
            http2=self.http == "2",
            faults_for="generations",
        )

    def _check(self, fault: Fault | None) -> None:
        if fault is None:
            return
        if fault.at == "handshake" and not self.tls:
            raise ValueError("a fault at handshake needs tls")
        if version := fault.needs(self.http):
            raise ValueError(f'{fault.kind} needs {version}: set http = "{version.removeprefix("HTTP/")}"')


def parse_scenario(text: str, name: str, source: str = "") -> Scenario:
    """Read a scenario from TOML.

    Args:
        text: the TOML.
        name: the scenario's name.
        source: what a message calls the text; ``""``: its name.

    Raises:
        ValueError: the text is no scenario; the message names the source, the key, and what is allowed.
    """
    source = source or name
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source}: not TOML: {error}") from None
    try:
        return Scenario(name, **read_table(table, numbered_answer()))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def load_scenario(path: str | Path) -> Scenario:
    """Read the scenario of a file; its name is that of the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no scenario; the message names the file, the key, and what is allowed.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not TOML: it is not UTF-8") from None
    return parse_scenario(text, path.stem, str(path))


def catalogue() -> dict[str, Scenario]:
    """Return the scenarios that come with the lab, by name, in the order of a turn: the first has no fault."""
    folder = resources.files("unbroken.lab") / "scenarios"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    found: dict[str, Scenario] = {}
    for file in files:
        name = file.name.removesuffix(".toml").partition("-")[2]  # a number comes before it, for the order
        found[name] = parse_scenario(file.read_text(encoding="utf-8"), name, file.name)
    return found


def find_scenario(name: str) -> Scenario:
    """Return the scenario of the catalogue with this name.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    known = catalogue()
    if name not in known:
        raise ValueError(f"unknown scenario {name!r}; the scenarios are: {', '.join(known)}")
    return known[name]
