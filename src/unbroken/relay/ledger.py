"""What is noted of every request: on the board, in the metrics and in the access log."""

from __future__ import annotations

import time
from functools import partial

from unbroken.core.actions import RetryEvent
from unbroken.relay.access import AccessLog, Entry, timestamp
from unbroken.relay.board import Board
from unbroken.relay.inbound import Inbound
from unbroken.relay.metrics import Metrics
from unbroken.relay.records import Outcome, TurnRecord
from unbroken.relay.turns import RelayedTurn


class Ledger:
    """Where everything is noted.

    Args:
        log: the access log, ``None`` for none.

    Attributes:
        board: what is going on.
        metrics: what is counted.
    """

    def __init__(self, log: AccessLog | None) -> None:
        self.board = Board()
        self.metrics = Metrics()
        self._log = log

    def again(self, name: str, event: RetryEvent) -> None:
        """An attempt of a turn was lost, and another one follows."""
        if self._log:
            self._log.again(name, event)

    def enter(self, turn: RelayedTurn) -> None:
        """A turn begins."""
        self.board.enter(turn)
        self.metrics.begun()

    def leave(self, turn: RelayedTurn, inbound: Inbound) -> None:
        """A turn has ended."""
        record, report = self.board.leave(turn), turn.driver.report
        self.metrics.ended(record, report)
        if self._log:
            self._log.ended(
                Entry(
                    time=timestamp(),
                    id=record.id,
                    method=inbound.method,
                    path=inbound.path,
                    upstream=record.upstream,
                    dialect=record.dialect,
                    status=turn.reply.status,
                    outcome=record.outcome or Outcome.LEFT,
                    attempts=len(record.attempts),
                    retries=report.retries,
                    replays=report.replays,
                    lost=report.losses,
                    elapsed=_rounded(record.elapsed),
                    first_output=None if record.first_output is None else _rounded(record.first_output),
                    bytes_in=inbound.received,
                    bytes_out=record.bytes,
                    heartbeats=record.heartbeats,
                    detail=_detail(turn, record),
                )
            )

    def visit(self, name: str, inbound: Inbound) -> Visit:
        """A request comes in that may be no turn."""
        return Visit(self, name, inbound)

    def other(self, entry: Entry) -> None:
        """A request has ended that was no turn."""
        self.board.totals.passed += entry.outcome is Outcome.PASSED
        self.metrics.served(entry.outcome, entry.bytes_out)
        if self._log:
            self._log.ended(entry)


class Visit:
    """One request, noted when it ends.

    Args:
        ledger: where.
        name: the request's name in the log.
        inbound: the request.
    """

    def __init__(self, ledger: Ledger, name: str, inbound: Inbound) -> None:
        self.name = name
        self._ledger = ledger
        self._inbound = inbound
        self._began = time.monotonic()

    def ended(
        self, outcome: Outcome, status: int | None, *, upstream: str | None = None, sent: int = 0, detail: str = ""
    ) -> None:
        """It has ended, and was no turn."""
        self._ledger.other(
            Entry(
                time=timestamp(),
                id=self.name,
                method=self._inbound.method,
                path=self._inbound.path,
                upstream=upstream,
                dialect=None,
                status=status,
                outcome=outcome,
                elapsed=_rounded(time.monotonic() - self._began),
                bytes_in=self._inbound.received,
                bytes_out=sent,
                detail=detail,
            )
        )


def _detail(turn: RelayedTurn, record: TurnRecord) -> str:
    """Why it failed; of an upstream that refused, its status alone: its words may quote what was asked."""
    if record.outcome is Outcome.REFUSED and turn.detail:
        return f"HTTP {record.attempts[-1].status}, for which it was too late"
    return turn.detail


_rounded = partial(round, ndigits=3)
