"""The paths to a server, in the order of the user's preference, and the choice of the one that an attempt takes.

A path is a proxy, or a direct connection. Nothing but what was named is ever taken. An attempt takes the same path as
the one before it, until that path has failed: at once where no connection came about, and after :data:`LOSSES` losses
before any output. What says nothing about the path does not count: a status, an error inside the stream, a limit of the
model's time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import msgspec

from unbroken.core.failures import PROXY_FAILURES, Failure, Phase, Row

LOSSES = 2
"""After how many losses before output, on one path, the next attempt takes another one."""

REMEMBERED = 3600.0
"""Seconds for which another path than the preferred one is taken first."""

MOST = 1000
"""How many servers are remembered."""

DIRECT = "direct"
"""The name of a connection without a proxy."""

_NOT_THE_PATHS = frozenset({Failure.TOO_MANY_PINGS, Failure.STALLED})
_WITHOUT_CONNECTION = frozenset({*PROXY_FAILURES, Failure.NO_SUCH_HOST})


class PathName(msgspec.Struct, frozen=True):
    """A path, for a person.

    Attributes:
        name: a proxy's URL without credentials, :data:`DIRECT`, or ``""`` if it is not known.
        source: where it was set, such as ``"HTTPS_PROXY"``, or ``""``.
    """

    name: str = ""
    source: str = ""


class Paths(msgspec.Struct, frozen=True):
    """The paths to one server.

    Attributes:
        names: in the order of preference; at least one.
        first: index of the one to begin with.
    """

    names: tuple[PathName, ...] = (PathName(),)
    first: int = 0


class PathChoice:
    """The path of each attempt of a turn.

    Attributes:
        index: the present path.
        moved: whether it is another one than the turn began with.
    """

    def __init__(self, paths: Paths) -> None:
        self.index = paths.first
        self.moved = False
        self._names = paths.names
        self._losses = 0
        self._tried = {paths.first}
        self._proven: int | None = None
        self._closed: set[int] = set()

    @property
    def name(self) -> PathName:
        """The present path."""
        return self._names[self.index]

    def successor(self, failure: Failure, phase: Phase) -> int | None:
        """Return the path to take after this loss, ``None`` to stay."""
        if failure is Failure.DEAD_PATH and self._proven not in (None, self.index):
            return self._proven
        leaves = _has_no_connection(failure, phase) or (_is_the_paths(failure, phase) and self._losses + 1 >= LOSSES)
        count = len(self._names)
        later = ((self.index + step) % count for step in range(1, count))
        return next((path for path in later if path not in self._closed), None) if leaves else None

    def beside(self, failed: int) -> int:
        """Return the path of a second connection, beside a suspected one: each in turn, the present one first.

        Args:
            failed: how many have failed before.
        """
        count = len(self._names)
        paths = [path for step in range(count) if (path := (self.index + step) % count) not in self._closed]
        return paths[failed % len(paths)] if paths else self.index

    def prove(self, path: int | None) -> None:
        """Record over which path a second connection stands, ``None`` for none: it follows a dead one."""
        self._proven = path

    def is_new(self, path: int | None) -> bool:
        """Return whether no attempt of the turn has taken this path yet."""
        return path is not None and path not in self._tried

    def lose(self, failure: Failure, phase: Phase) -> bool:
        """Record a loss after which another attempt follows; return whether that takes another path."""
        following, self._proven = self.successor(failure, phase), None
        if failure.row is Row.MISCONFIGURED:
            self._closed.add(self.index)
        if following is None:
            self._losses += _is_the_paths(failure, phase)
            return False
        self.index, self.moved, self._losses = following, True, 0
        self._tried.add(following)
        return True


class PathMemory:
    """The paths that proved better than the preferred ones, by server, for :data:`REMEMBERED` seconds."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[int, float]] = {}

    def first(self, server: Hashable, now: float) -> int:
        """Return the path to begin with."""
        path, until = self._kept.get(server, (0, now))
        return path if now < until else 0

    def prefer(self, server: Hashable, path: int, now: float) -> None:
        """Record that a response came over this path, after another one had failed."""
        self._kept.pop(server, None)
        if path:
            self._kept[server] = (path, now + REMEMBERED)
        while len(self._kept) > MOST:
            self._kept.pop(next(iter(self._kept)))


def told_by_path(losses: Iterable[tuple[str, str]]) -> str:
    """Return how the last attempt on each path failed, the latest first.

    Args:
        losses: path and failure of each attempt, in order.
    """
    latest: dict[str, str] = {}
    for path, told in losses:
        latest.pop(path, None)
        latest[path] = told
    if len(latest) == 1:
        return next(iter(latest.values()))
    return "; ".join(told if path in told else f"{path}: {told}" for path, told in reversed(latest.items()))


def _is_the_paths(failure: Failure, phase: Phase) -> bool:
    before_output = phase not in (Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE)
    return before_output and failure.row is Row.LOST and failure not in _NOT_THE_PATHS


def _has_no_connection(failure: Failure, phase: Phase) -> bool:
    if failure.row is Row.UNREACHABLE or failure in _WITHOUT_CONNECTION:
        return True
    return phase is Phase.CONNECT and _is_the_paths(failure, phase)
