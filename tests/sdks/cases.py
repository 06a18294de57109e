"""What goes wrong: with the first request only, so that whoever asks again gets a whole answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unbroken.lab import Fault, Kind, Point

IDLE = 3.0
"""Seconds of silence that Unbroken allows where the case is silence: far more than an SDK and the server beside it, in
one process, need for a token on a busy machine."""


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong.

    Attributes:
        name: the row of the table.
        fault: what the server does; for an error in the stream its words are in `errors`.
        errors: the error in each dialect's words.
        whole: whether it can happen to an answer that is not streamed.
    """

    name: str
    fault: Fault | None = None
    errors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    whole: bool = True

    def fault_in(self, dialect: str) -> Fault | None:
        """What the server does, in a dialect."""
        if self.fault is None or not self.errors:
            return self.fault
        return Fault(self.fault.kind, self.fault.at, error=self.errors[dialect])

    @property
    def is_silence(self) -> bool:
        """Whether it takes a limit to notice it."""
        return self.fault is not None and self.fault.kind == "stall"


_OPENAI_OVERLOADED = {"type": "server_error", "code": "server_is_overloaded", "message": "Overloaded."}
_OPENAI_INVALID = {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "Too long."}
TRANSIENT: Mapping[str, Mapping[str, Any]] = {
    "chat": _OPENAI_OVERLOADED,
    "completions": _OPENAI_OVERLOADED,
    "responses": _OPENAI_OVERLOADED,
    "anthropic": {"type": "overloaded_error", "message": "Overloaded."},
    "gemini": {"code": 503, "status": "UNAVAILABLE", "message": "Overloaded."},
    "interactions": {"code": "service_unavailable", "message": "Overloaded."},
}
PERMANENT: Mapping[str, Mapping[str, Any]] = {
    "chat": _OPENAI_INVALID,
    "completions": _OPENAI_INVALID,
    "responses": _OPENAI_INVALID,
    "anthropic": {"type": "invalid_request_error", "message": "Too long."},
    "gemini": {"code": 400, "status": "INVALID_ARGUMENT", "message": "Too long."},
    "interactions": {"code": "invalid_request", "message": "Too long."},
}

CUTS: Mapping[Kind, str] = {"rst": "reset", "fin": "close", "clean_end": "clean end", "stall": "silence"}
PLACES: Mapping[Point, str] = {
    "after_headers": "before any token",
    "after_role": "after the prelude",
    "after_token": "after a token",
    "after_finish": "after settling",
}
_BROKEN = [
    Case(f"{CUTS[kind]} {place}", Fault(kind, at), whole=at != "after_role")
    for at, place in PLACES.items()
    for kind in CUTS
]
CASES: tuple[Case, ...] = (
    Case("nothing goes wrong"),
    Case("reset before the headers", Fault("rst", "before_headers")),
    *_BROKEN,
    Case("transient error in the stream", Fault("error_event", "after_role"), TRANSIENT, whole=False),
    Case("permanent error in the stream", Fault("error_event", "after_role"), PERMANENT, whole=False),
    Case("429 with Retry-After", Fault("status", "before_headers", status=429, headers={"Retry-After": "0"})),
    Case("400", Fault("status", "before_headers", status=400)),
)
