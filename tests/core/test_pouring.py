"""Bytes that a turn hands on at once, while it has nothing to decide."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from core.playbook import ANSWER, DONE, ROLE, STOP, text
from unbroken.core.actions import EndTurn, Give, GiveHead, Read, Send
from unbroken.core.dialect import Call, Generation
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.http import Head
from unbroken.core.policy import Policy
from unbroken.core.turn import Turn


def begun(*pieces: bytes, encoding: str = "identity", **policy: Any) -> Turn:
    """A turn that has got so much, and has handed on what it may."""
    call = Call(OPENAI_CHAT, Generation(streaming=True))
    turn = Turn(call, Policy(**policy), now=0.0, random=lambda: 0.0, wall_clock=lambda: 0.0)
    assert isinstance(turn.next(), Send)
    turn.head(Head(200, ((b"content-type", b"text/event-stream"), (b"content-encoding", encoding.encode()))), 0.0)
    for piece in pieces:
        turn.data(piece, 0.0)
    drain(turn)
    return turn


def drain(turn: Turn) -> bytes:
    given = b""
    while isinstance(action := turn.next(), (Give, GiveHead)):
        given += action.data if isinstance(action, Give) else b""
    return given


def test_output_is_handed_on_at_once_up_to_what_ends_it() -> None:
    turn = begun(ROLE, text("Hel"))
    limits = turn.flowing
    assert turn.next() == Read(limits)
    assert turn.pour(text("lo"), 1.0) == text("lo")
    assert turn.flowing == limits
    assert turn.pour(STOP, 2.0) is None
    assert turn.flowing is None
    assert turn.withholds
    assert drain(turn) == STOP
    assert not turn.withholds
    turn.data(DONE, 3.0)
    assert drain(turn) == DONE
    turn.end(3.0)
    assert isinstance(turn.next(), EndTurn)


def test_half_an_ending_is_not_handed_on() -> None:
    turn = begun(ROLE, text("Hel"))
    assert turn.pour(STOP[:-3], 1.0) == b""
    assert turn.pour(STOP[-3:], 1.0) is None
    assert drain(turn) == STOP


def test_what_is_put_back_comes_first() -> None:
    turn = begun(ROLE, text("Hel"))
    data = turn.pour(text("lo"), 1.0)
    assert data
    turn.put_back(data)
    assert turn.flowing is None
    assert drain(turn) == text("lo")
    assert turn.flowing


@pytest.mark.parametrize(
    ("pieces", "policy"),
    [
        ((), {}),
        ((ROLE,), {}),
        ((ROLE, text("Hel")), {"hold": "answer"}),
        ((ROLE, text("Hel")), {"stall_output_timeout": 60.0}),
        ((ROLE, text("Hel"), STOP), {}),
    ],
    ids=["nothing", "a prelude", "held output", "a limit that each output moves", "an ending"],
)
def test_nothing_flows_where_each_piece_is_decided_on(pieces: tuple[bytes, ...], policy: Any) -> None:
    assert begun(*pieces, **policy).flowing is None


def test_nothing_flows_once_it_is_cancelled() -> None:
    turn = begun(ROLE, text("Hel"))
    turn.cancelled(1.0, sent=True)
    assert turn.flowing is None


def test_compressed_bytes_are_decoded_a_slice_at_a_time() -> None:
    body = ROLE + text("Hel") + text("x" * 1_000_000) + STOP + DONE
    turn = begun(encoding="gzip")
    turn.data(gzip.compress(ROLE + text("Hel")), 0.0)
    given = drain(turn)
    assert turn.flowing
    assert turn.pour(gzip.compress(body.removeprefix(ROLE + text("Hel"))), 1.0) is None
    assert given + drain(turn) == body


def test_an_answer_in_one_piece_never_flows() -> None:
    assert begun(ANSWER).flowing is None
