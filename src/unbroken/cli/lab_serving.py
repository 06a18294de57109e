"""The common parts of the lab's servers on the command line: faults, start, and what they tell meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import click

from unbroken.errors import UsageError
from unbroken.lab.fault import KINDS, POINTS, Fault, parse_fault
from unbroken.lab.service import Service

FAULT_EPILOG = f"Kinds: {', '.join(KINDS)}. Points: {', '.join(POINTS)}."

_Server = TypeVar("_Server", bound=Service)
_Item = TypeVar("_Item")

_LONG = 3600.0  # seconds of one wait; a wait without an end could not be interrupted on Windows


def fault_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options ``--fault`` and ``--times``."""
    times = click.option(
        "--times", type=click.IntRange(min=0), default=1, show_default=True, help="How many requests each fault meets."
    )
    fault = click.option(
        "--fault", "faults", multiple=True, metavar="KIND[=VALUE]@POINT", help="Fault of the first requests."
    )
    return fault(times(command))


def read_faults(texts: Sequence[str], times: int) -> list[Fault]:
    """Return the faults of the first requests.

    Raises:
        UsageError: a text is no fault.
    """
    try:
        return [fault for text in texts for fault in [parse_fault(text)] * times]
    except ValueError as exc:
        raise UsageError(str(exc)) from None


@contextlib.contextmanager
def serving(server: _Server) -> Iterator[_Server]:
    """Run a server.

    Raises:
        UsageError: its port is taken.
    """
    try:
        server.start()
    except OSError as exc:
        raise UsageError(f"cannot listen on port {server.port}: {exc.strerror}; --port 0 takes a free one") from None
    with contextlib.closing(server):
        yield server


def arrivals(server: Service, items: list[_Item]) -> Iterator[_Item]:
    """Return what a server adds to a list, as it comes, without an end."""
    seen = 0
    while True:
        until(server, partial(_has_more, items, seen))
        yield items[seen]
        seen += 1


def _has_more(items: list[Any], seen: int) -> bool:
    return len(items) > seen


def until(server: Service, happened: Callable[[], object]) -> None:
    """Wait until something has happened at a server."""
    while not server.wait_for(happened, _LONG):
        pass
