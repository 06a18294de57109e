"""Entries of a journal, made for tests."""

from __future__ import annotations

from typing import Any

from unbroken.core.failures import Failure, Phase
from unbroken.core.report import AttemptReport
from unbroken.core.route import RouteRecord
from unbroken.journal.entry import JournalEntry

NOW = 1_795_000_000.0
HOST, PROXY = "api.deepseek.com", "http://127.0.0.1:10809"


def attempt(
    failure: Failure | None = Failure.CLOSED,
    phase: Phase = Phase.PRELUDE,
    silent: float = 60.0,
    *,
    host: str = HOST,
    proxy: str = PROXY,
    http_version: str = "HTTP/1.1",
    **more: Any,
) -> AttemptReport:
    """The report of an attempt that was lost, by default after 60 s of silence behind a proxy."""
    route = RouteRecord(host=host, proxy=proxy, secure=True, http_version=http_version, ping=10.0)
    return AttemptReport(
        number=0,
        phase=phase,
        failure=failure.code if failure else None,
        silent=silent,
        elapsed=silent,
        http_version=http_version,
        route=route,
        **more,
    )


def entry(at: float = NOW, *args: Any, face: str = "run", **more: Any) -> JournalEntry:
    """An entry of the journal; the other arguments are as for :func:`attempt`."""
    return JournalEntry(at, face, attempt(*args, **more))
