"""Output of a turn for a program: one JSON object, or JSON events; in UTF-8, in any locale."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from unbroken.cli.render import Renderer
from unbroken.cli.terminal import HIDDEN, is_tty
from unbroken.client.synchronous import TurnStream
from unbroken.core.actions import RetryEvent
from unbroken.core.events import TypedEvent, Usage
from unbroken.errors import TurnError


class JsonRenderer(Renderer):
    """A renderer that writes one object at the end of the turn, also after a failure."""

    def failed(self, error: TurnError, turn: TurnStream) -> None:
        """See :meth:`Renderer.failed`."""
        self._end(turn, {"error": _error(error)})
        super().failed(error, turn)

    def interrupted(self, turn: TurnStream) -> None:
        """See :meth:`Renderer.interrupted`."""
        self._end(turn, {"error": _interruption(turn)})

    def finished(self, turn: TurnStream) -> None:
        """See :meth:`Renderer.finished`."""
        self._end(turn, {})
        super().finished(turn)

    def _end(self, turn: TurnStream, error: dict[str, Any]) -> None:
        self._stop_waiting()
        said = {"text": turn.text, "reasoning": turn.reasoning, "tool_calls": _tool_calls(turn)}
        self._write(encoded(said | _ending(turn) | error))


class JsonLinesRenderer(Renderer):
    """A renderer that writes one object per line: each event and each attempt lost, then ``end`` or ``failed``."""

    def event(self, event: TypedEvent) -> None:
        """See :meth:`Renderer.event`."""
        self._line(event)

    def retried(self, event: RetryEvent) -> None:
        """See :meth:`Renderer.retried`."""
        told = {"attempt": event.attempt, "of": event.of, "delay": event.delay, "lost": event.lost}
        moved = {"path": event.path} if event.path else {}
        places = {"character": event.character, "after": event.after}
        place = {name: at for name, at in places.items() if at is not None}
        self._line({"type": event.action} | told | {"advice": event.advice} | moved | place)
        super().retried(event)

    def failed(self, error: TurnError, turn: TurnStream) -> None:
        """See :meth:`Renderer.failed`."""
        self._line({"type": "failed"} | _error(error) | _ending(turn))
        super().failed(error, turn)

    def interrupted(self, turn: TurnStream) -> None:
        """See :meth:`Renderer.interrupted`. After half a line, nothing is written."""
        if not self._stdout.torn:
            self._line({"type": "failed"} | _interruption(turn) | _ending(turn))

    def finished(self, turn: TurnStream) -> None:
        """See :meth:`Renderer.finished`."""
        self._line({"type": "end"} | _ending(turn))
        super().finished(turn)

    def _line(self, value: Any) -> None:
        self._stop_waiting()
        self._write(encoded(value))


def encoded(value: Any) -> bytes:
    """Encode one line of JSON.

    What UTF-8 cannot encode (half of a surrogate pair), and on a terminal what could control it, is written as escapes.
    """
    try:
        line = msgspec.json.encode(value) + b"\n"
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value)).encode() + b"\n"
    if is_tty(sys.stdout):
        return HIDDEN.sub(lambda found: json.dumps(found[0])[1:-1], line.decode()).encode()
    return line


def _ending(turn: TurnStream) -> dict[str, Any]:
    report = turn.report
    places = {"seams": report.seams, "resumes": report.resumes, "restarts": report.restarts}
    ending = {"finish_reason": turn.finish_reason, "usage": _usage(turn.usage), "attempts": report.attempts}
    background = {"background": report.background} if report.background else {}
    return ending | {name: found for name, found in places.items() if found} | background


def _tool_calls(turn: TurnStream) -> list[dict[str, Any]]:
    return [{"id": call.id, "name": call.name, "arguments": call.parsed} for call in turn.tool_calls]


def _usage(usage: Usage) -> dict[str, int | None]:
    return {
        "in": usage.input_tokens,
        "cached": usage.cached_tokens,
        "new": usage.new,
        "out": usage.output_tokens,
        "reasoning": usage.reasoning_tokens,
        "total": usage.total,
    }


def _error(error: TurnError) -> dict[str, Any]:
    return {"code": error.code, "phase": error.phase, "retryable": error.retryable, "message": str(error)}


def _interruption(turn: TurnStream) -> dict[str, Any]:
    return {"code": "cancelled", "phase": turn.progress.phase, "retryable": True, "message": "interrupted by a signal"}
