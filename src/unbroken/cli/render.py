"""How a turn is shown: as text, as one JSON object, or as JSON events."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from unbroken.cli.terminal import LiveLine, dimmed, harmless, is_terminal, say
from unbroken.client import TurnStream
from unbroken.core.events import Reasoning, Refusal, Text, TypedEvent, Usage
from unbroken.core.report import AttemptReport, Report
from unbroken.core.turn import Again
from unbroken.drivers.notices import describe
from unbroken.drivers.synchronous import Driver
from unbroken.errors import TurnError


def renderer(options: Mapping[str, Any]) -> Renderer:
    """The renderer that ``--format``, ``--show-reasoning``, ``--quiet`` and ``--verbose`` ask for."""
    logger = logging.getLogger("unbroken")  # what it would say is said here
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    kind = {"text": TextRenderer, "json": JsonRenderer, "jsonl": JsonLinesRenderer}[options["format"]]
    shows_reasoning = options["show_reasoning"]
    if shows_reasoning is None:
        shows_reasoning = is_terminal(sys.stderr) and not options["quiet"]
    return kind(quiet=options["quiet"], verbose=options["verbose"], shows_reasoning=shows_reasoning)


class Renderer:
    """Shows a turn. What goes to stderr is the same for every format.

    Args:
        quiet: say nothing but errors.
        verbose: tell of every attempt at the end.
        shows_reasoning: show the model's reasoning on stderr.
    """

    def __init__(self, *, quiet: bool, verbose: bool, shows_reasoning: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._shows_reasoning = shows_reasoning
        self._live: LiveLine | None = None
        self._advised = ""

    @contextlib.contextmanager
    def waiting(self, driver: Driver, provider: str) -> Iterator[None]:
        """Show on a terminal what is being waited for, until something comes."""
        if self._quiet or not is_terminal(sys.stderr):
            yield
            return
        self._live = LiveLine(driver, provider)
        with self._live.shown():
            yield

    def again(self, event: Again) -> None:
        """A retry or replay: one line, and advice once there is a pattern."""
        if self._quiet:
            return
        self._notice(f"↻ {describe(event)}")
        if event.advice and event.advice != self._advised:
            self._notice(f"  {event.advice}")
            self._advised = event.advice

    def event(self, event: TypedEvent) -> None:
        """Something has come."""
        if self._live:
            self._live.stop()

    def failed(self, error: TurnError, turn: TurnStream) -> None:
        """The turn has failed."""
        say(f"unbroken: {harmless(str(error))}")
        self._attempts(turn.report)

    def finished(self, turn: TurnStream) -> None:
        """The turn has ended well: the footer."""
        if not self._quiet:
            say(dimmed(footer(turn.usage, turn.report), sys.stderr))
            self._attempts(turn.report)

    def _notice(self, text: str) -> None:
        if self._live:
            self._live.interrupt(text)
        else:
            say(text)

    def _attempts(self, report: Report) -> None:
        if self._verbose:
            for attempt in report.attempts:
                say(dimmed(f"  · {attempt_line(attempt)}", sys.stderr))


class TextRenderer(Renderer):
    """The answer as it comes."""

    def __init__(self, **options: bool) -> None:
        super().__init__(**options)
        self._last = "\n"
        self._reasoned = ""

    def event(self, event: TypedEvent) -> None:
        """See :meth:`Renderer.event`."""
        super().event(event)
        match event:
            case Text(text, 0) | Refusal(text, 0):
                self._end_reasoning()
                self._answer(text)
            case Reasoning(text, 0) if self._shows_reasoning:
                sys.stderr.write(dimmed(harmless(text), sys.stderr))
                sys.stderr.flush()
                self._reasoned = text

    def failed(self, error: TurnError, turn: TurnStream) -> None:
        """See :meth:`Renderer.failed`; what had come stays, on lines of its own."""
        self._end_lines()
        super().failed(error, turn)

    def finished(self, turn: TurnStream) -> None:
        """See :meth:`Renderer.finished`."""
        self._end_lines()
        if not self._quiet:
            for call in turn.tool_calls:
                say(harmless(f"  · tool call {call.name}({call.arguments}), not run: unbroken run has no tools"))
        super().finished(turn)

    def _answer(self, text: str) -> None:
        sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()
        self._last = text[-1:]

    def _end_reasoning(self) -> None:
        if self._reasoned:
            say("" if self._reasoned.endswith("\n") else "\n")
            self._reasoned = ""

    def _end_lines(self) -> None:
        self._end_reasoning()
        if self._last != "\n":
            self._answer("\n")


class JsonRenderer(Renderer):
    """One object, once the turn is over."""

    def failed(self, error: TurnError, turn: TurnStream) -> None:
        """See :meth:`Renderer.failed`."""
        _print_json(_whole(turn) | {"error": _error(error)})
        super().failed(error, turn)

    def finished(self, turn: TurnStream) -> None:
        """See :meth:`Renderer.finished`."""
        _print_json(_whole(turn))
        super().finished(turn)


class JsonLinesRenderer(Renderer):
    """One object a line: each event, each retry or replay, and at last ``end`` or ``error``."""

    def event(self, event: TypedEvent) -> None:
        """See :meth:`Renderer.event`."""
        super().event(event)
        _print_json(event)

    def again(self, event: Again) -> None:
        """See :meth:`Renderer.again`."""
        _print_json(
            {
                "type": event.action,
                "attempt": event.attempt,
                "of": event.of,
                "delay": event.delay,
                "lost": event.lost,
                "advice": event.advice,
            }
        )
        super().again(event)

    def failed(self, error: TurnError, turn: TurnStream) -> None:
        """See :meth:`Renderer.failed`."""
        _print_json({"type": "failed"} | _error(error) | {"attempts": turn.report.attempts})
        super().failed(error, turn)

    def finished(self, turn: TurnStream) -> None:
        """See :meth:`Renderer.finished`."""
        usage = _usage(turn.usage)
        _print_json(
            {"type": "end", "finish_reason": turn.finish_reason, "usage": usage, "attempts": turn.report.attempts}
        )
        super().finished(turn)


def footer(usage: Usage, report: Report) -> str:
    """Such as ``  · 10 tok · in 7 (0 cached / 7 new) · out 3``, and what was lost on the way."""
    parts = ["", "no token count"]
    if usage.input is not None and usage.output is not None:
        reasoning = f" ({usage.reasoning} reasoning)" if usage.reasoning else ""
        parts = [
            "",
            f"{usage.total} tok",
            f"in {usage.input} ({usage.cached or 0} cached / {usage.new} new)",
            f"out {usage.output}{reasoning}",
        ]
    if report.lost:
        parts.append(f"{report.lost} attempt{'s' * (report.lost > 1)} lost")
    return " " + " · ".join(parts)


def attempt_line(attempt: AttemptReport) -> str:
    """One attempt, for ``--verbose``."""
    outcome = attempt.failure or "answered"
    status = f", HTTP {attempt.status}" if attempt.status else ""
    over = f" over {attempt.http_version}" if attempt.http_version else ""
    pinged = ", PING kept up" if attempt.pinged else ""
    detail = f" ({harmless(attempt.detail)})" if attempt.detail else ""
    return (
        f"attempt {attempt.number}: {outcome}{detail} in {attempt.phase} after {attempt.elapsed:.1f} s, "
        f"{attempt.silent:.1f} s silent{status}{over}{pinged}; billed: {attempt.billed}"
    )


def _whole(turn: TurnStream) -> dict[str, Any]:
    calls = [{"id": call.id, "name": call.name, "arguments": call.parsed} for call in turn.tool_calls]
    return {
        "text": turn.text,
        "reasoning": turn.reasoning,
        "tool_calls": calls,
        "finish_reason": turn.finish_reason,
        "usage": _usage(turn.usage),
        "attempts": turn.report.attempts,
    }


def _usage(usage: Usage) -> dict[str, int | None]:
    return {
        "in": usage.input,
        "cached": usage.cached,
        "new": usage.new,
        "out": usage.output,
        "reasoning": usage.reasoning,
        "total": usage.total,
    }


def _error(error: TurnError) -> dict[str, Any]:
    return {"code": error.code, "phase": error.phase, "retryable": error.retryable, "message": str(error)}


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()
