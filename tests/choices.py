"""The failure table by what the caller has chosen: what each failure does once the model has said something, as data.

It has one cell for each failure, place and choice; a second one has the attempt that follows a cut.
``core/test_choices.py`` plays every cell in virtual time, ``conformance/test_choices.py`` on real sockets, and
``docs/rule.md`` tells both in tables that ``docs/test_reference.py`` compares with these.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from unbroken.core.continuation.format import Style
from unbroken.lab import ScriptedAnswer
from unbroken.lab.anthropic import ANTHROPIC
from unbroken.lab.chat import CHAT
from unbroken.lab.completions import COMPLETIONS
from unbroken.lab.dialect import Pieces, ServerDialect
from unbroken.lab.gemini import GEMINI
from unbroken.lab.responses import RESPONSES

CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "hold=reasoning": {"hold": "reasoning"},
    "hold=answer": {"hold": "answer"},
    "resume": {},
    "continue": {"after_output": "continue"},
    "restart": {"after_output": "restart"},
}
"""What each choice is in a policy; what can be resumed is the request's choice (:meth:`Cell.fields`)."""


class Outcome(enum.Enum):
    """What becomes of the turn, in the words of the docs."""

    CUT = "`StreamCut`"
    REPLAY = "**replay**"
    RETRY = "retry"
    RESUME = "taken up"
    CONTINUE = "continued"
    RESTART = "begins again"
    HAND_ON = "handed on"
    THROUGH = "bytes go through; the typed client raises"
    WAIT = "waited for"
    RAISE = "raised"
    LEAVE = "ends at once"
    END = "normal end"
    NONE = "–"


TABLE = """
                            default  hold=reasoning  hold=answer  resume   continue  restart
    lost          reasoning cut      replay          replay       resume   cut       restart
    lost          text      cut      cut             replay       resume   continue  restart
    lost          settled   end      end             end          end      end       end
    unprocessed   reasoning cut      retry           retry        resume   cut       restart
    unprocessed   text      cut      cut             retry        resume   continue  restart
    unprocessed   settled   end      end             end          end      end       end
    suspected     reasoning wait     replay          replay       resume   wait      wait
    suspected     text      wait     wait            replay       resume   wait      wait
    suspected     settled   end      end             end          end      end       end
    may_pass      reasoning hand_on  replay          replay       hand_on  hand_on   hand_on
    may_pass      text      hand_on  hand_on         replay       hand_on  hand_on   hand_on
    may_pass      settled   hand_on  hand_on         hand_on      hand_on  hand_on   hand_on
    will_not_pass reasoning hand_on  hand_on         hand_on      hand_on  hand_on   hand_on
    will_not_pass text      hand_on  hand_on         hand_on      hand_on  hand_on   hand_on
    will_not_pass settled   hand_on  hand_on         hand_on      hand_on  hand_on   hand_on
    unreadable    reasoning through  through         through      through  through   through
    unreadable    text      through  through         through      through  through   through
    unreadable    settled   through  through         through      through  through   through
    caller        reasoning raise    raise           raise        raise    raise     raise
    caller        text      raise    raise           raise        raise    raise     raise
    caller        settled   end      end             end          end      end       end
    cancelled     reasoning leave    leave           leave        leave    leave     leave
    cancelled     text      leave    leave           leave        leave    leave     leave
    cancelled     settled   leave    leave           leave        leave    leave     leave
"""

FOLLOWING_TABLE = """
                    resume   continue  restart
    unreachable     retry    retry     retry
    lost            resume   replay    replay
    busy            retry    retry     retry
    gave_up         retry    replay    replay
    refused         cut      cut       cut
    other_content   cut      cut       cut
    may_pass        hand_on  replay    replay
    will_not_pass   hand_on  cut       cut
    unreadable      cut      cut       cut
    no_output       none     cut       cut
    misfit          cut      cut       none
    caller          raise    raise     raise
    cancelled       leave    leave     leave
"""
"""What a failure of the attempt that follows a cut does, before anything of it is handed on; later it is as above."""

FAILURES = {
    "lost": "reset, close, truncated body, idle timeout, stall, and so on",
    "unprocessed": "GOAWAY that says that the request was not processed",
    "suspected": "an unanswered PING",
    "may_pass": "error inside the stream that may pass",
    "will_not_pass": "error inside the stream that will not pass",
    "unreadable": "malformed event, event over 16 MiB",
    "caller": "a timeout of the caller's own",
    "cancelled": "cancelled",
}
"""The failures in the words of the docs."""

FOLLOWING_FAILURES = {
    "unreachable": "connection refused, and the like",
    "lost": "reset, close, and the like, before its output",
    "busy": "429, 529 and the like",
    "gave_up": "504, 524, and the like after a long wait",
    "refused": "any other status",
    "other_content": "another content type than was asked for",
    "may_pass": "error inside the stream that may pass",
    "will_not_pass": "error inside the stream that will not pass",
    "unreadable": "malformed event, event over 16 MiB",
    "no_output": "no output in time",
    "misfit": "it does not fit what came before",
    "caller": "a timeout of the caller's own",
    "cancelled": "cancelled",
}
"""The failures of the attempt that follows, in the words of the docs."""

PLACES = {"reasoning": "in the reasoning", "text": "in the text", "settled": "settled"}
"""The places in the words of the docs."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of the table."""

    failure: str
    place: str
    choice: str
    outcome: Outcome

    def __str__(self) -> str:
        return "-".join(filter(None, [self.failure, self.place, self.choice]))

    @property
    def limits(self) -> dict[str, Any]:
        """The choice, as fields of a policy."""
        return CHOICES[self.choice]

    @property
    def fields(self) -> dict[str, Any]:
        """The choice, as fields of a request."""
        return {"background": True} if self.choice == "resume" else {}

    def is_in(self, wire: Wire) -> bool:
        """Whether a dialect has the choice: one without a response that goes on at the server has nothing to resume."""
        return self.choice != "resume" or wire.server is RESPONSES

    def outcome_in(self, wire: Wire) -> Outcome:
        """What becomes of it in a dialect: one that has no style cannot continue."""
        return Outcome.CUT if self.outcome is Outcome.CONTINUE and wire.style is None else self.outcome


def _cells(table: str) -> list[Cell]:
    head, *lines = table.strip().splitlines()
    choices = head.split()
    return [
        Cell(row[0], "".join(row[1 : -len(choices)]), choice, Outcome[outcome.upper()])
        for row in map(str.split, lines)
        for choice, outcome in zip(choices, row[-len(choices) :], strict=True)
    ]


CELLS = _cells(TABLE)
FOLLOWING = [cell for cell in _cells(FOLLOWING_TABLE) if cell.outcome is not Outcome.NONE]


@dataclasses.dataclass(frozen=True)
class Wire:
    """A dialect, from both sides.

    Attributes:
        server: the lab's.
        path: path of its calls.
        body: fields of a call.
        style: how a server of it is asked to continue, ``None`` where that is impossible.
        will_not_pass: members of an error that will not pass.
    """

    server: ServerDialect
    path: str
    body: dict[str, Any]
    style: Style | None
    will_not_pass: dict[str, Any]


INVALID = {"type": "invalid_request_error"}
MESSAGES = {"model": "lab", "stream": True, "messages": [{"role": "user", "content": "Hello?"}]}
WIRES = {
    "chat": Wire(CHAT, "/v1/chat/completions", MESSAGES, "prefix", INVALID),
    "messages": Wire(ANTHROPIC, "/v1/messages", MESSAGES | {"max_tokens": 99}, "assistant", INVALID),
    "responses": Wire(RESPONSES, "/v1/responses", {"model": "lab", "stream": True, "input": "Hello?"}, None, INVALID),
    "legacy": Wire(
        COMPLETIONS, "/v1/completions", {"model": "lab", "stream": True, "prompt": "Hello?"}, "completion", INVALID
    ),
    "gemini": Wire(
        GEMINI,
        "/v1beta/models/lab:streamGenerateContent?alt=sse",
        {"contents": [{"role": "user", "parts": [{"text": "Hello?"}]}]},
        None,
        {"code": 400, "status": "INVALID_ARGUMENT"},
    ),
}


def answer_of(wire: Wire, place: str) -> ScriptedAnswer:
    """The model's answer. A legacy completion whose text has reasoning beside it is more than can be continued."""
    reasons = place == "reasoning" or wire.server is not COMPLETIONS
    return ScriptedAnswer(text=["Blue", ", as", " light", " scatters."], reasoning=["Hm", "."] if reasons else ())


def before_place(pieces: Pieces, place: str) -> bytes:
    """What has come where something goes wrong."""
    reasoned = {"prelude": [], "reasoning": pieces.reasoned[:1]}.get(place, pieces.reasoned)
    told = {"text": pieces.told[:2], "settled": pieces.told}.get(place, [])
    return b"".join([pieces.prelude, *reasoned, *told, pieces.finish if place == "settled" else b""])
