"""Bytes that are written from the upstream's call, and what ends that: nothing is lost, doubled or out of order."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.staging import BEAT, COMMENT, DONE, END, OK, ROLE, STOP, TOKEN, Stage, at, in_virtual_time, lost
from unbroken.core.policy import Policy
from unbroken.relay.recorder import Outcome

TOKENS = [TOKEN.replace(b"Hello", b"word %d" % number) for number in range(12)]
BODY = b"".join([ROLE, TOKENS[0], COMMENT, *TOKENS[1:], STOP, DONE])
HEARTBEAT = 1.0
POLICY = Policy(settle_timeout=100.0, first_output_timeout=9.0, give_up_after=9.0)


def cut_up(body: bytes, places: Sequence[int]) -> list[bytes]:
    """The body in pieces, cut at these places."""
    ends = [0, *sorted({place for place in places if 0 < place < len(body)}), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(ends)]


@st.composite
def scripts(draw: st.DrawFn) -> list[Any]:
    """An upstream that sends the body in any pieces, at any pace, and ends it, or loses it, or falls silent."""
    blank_lines = [place + 2 for place in range(len(BODY)) if BODY.startswith(b"\n\n", place)]
    anywhere = draw(st.lists(st.integers(1, len(BODY) - 1), max_size=3))
    pieces = cut_up(BODY, [*(place for place in blank_lines if draw(st.booleans())), *anywhere])
    script: list[Any] = [OK]
    for piece in pieces[: draw(st.integers(0, 2 * len(pieces)))]:
        script += [draw(st.sampled_from([0.0, 0.01, 0.3, 0.9])), piece]
    return [*script, draw(st.sampled_from([0.0, 0.01, 1.7, 9.0])), draw(st.sampled_from([END, END, lost()]))]


def stop_reading(stage: Stage) -> None:
    if not stage.client.is_full:
        stage.client.stop_reading()


def read_on(stage: Stage) -> None:
    if stage.client.is_full:
        stage.client.read_on()


def leave(stage: Stage) -> None:
    stage.client.leave()


def stop(stage: Stage) -> None:
    stage.stop()


OWN_MOMENTS = [0.1234, 0.6789, 1.2345, 3.4567, 6.7891]
SHARED_MOMENTS = [0.0, 0.01, 0.3, 0.9, 1.0, 2.5, 3.7, 4.0]
HAPPENINGS = st.sampled_from([stop_reading] * 4 + [read_on] * 4 + [leave, stop])


def happenings(moments: Sequence[float]) -> st.SearchStrategy[list[tuple[float, Callable[[Stage], None]]]]:
    """What client and server do meanwhile."""
    return st.lists(st.tuples(st.sampled_from(moments), HAPPENINGS), max_size=6, unique_by=lambda pair: pair[0])


Meanwhile: TypeAlias = Sequence[tuple[float, Callable[[Stage], None]]]


def performed(script: list[Any], meanwhile: Meanwhile, *, pours: bool, wakes_after: float = 0.0) -> Stage:
    scripts = [script, [OK, ROLE, lost()], [lost()], [lost()]]
    stage = Stage(scripts, heartbeat=HEARTBEAT, policy=POLICY, wakes_after=wakes_after)
    stage.pours = pours  # type: ignore[misc]

    async def main() -> None:
        others = [at(seconds, do) for seconds, do in (*meanwhile, (20.0, read_on))]
        await stage.perform(*[lambda other=other: other(stage) for other in others])

    in_virtual_time(main)
    return stage


@given(scripts(), happenings([*OWN_MOMENTS, *SHARED_MOMENTS]), st.sampled_from([0.0, 0.0, 0.2, 1.6]))
def test_a_client_gets_the_bytes_of_one_attempt_in_order_whatever_happens(
    script: Any, meanwhile: Any, wakes_after: float
) -> None:
    stage = performed(script, meanwhile, pours=True, wakes_after=wakes_after)
    if stage.client.status != 200:
        return  # there was nothing to hand on
    got = stage.client.body.replace(BEAT, b"")
    told = got.partition(b'data: {"error"')[0].rstrip(b"\n")
    assert BODY.startswith(told)
    if stage.record.outcome is Outcome.ANSWERED and stage.client.whole:
        sent = b"".join(piece for piece in script if isinstance(piece, bytes))
        assert got in (sent, sent[: sent.rindex(b"\n\n") + 2])  # half of a terminator proves nothing
    assert stage.record.bytes_out == len(stage.client.body)


@given(scripts(), happenings(OWN_MOMENTS))
def test_it_is_as_if_every_piece_had_been_sent(script: Any, meanwhile: Any) -> None:
    """But for heartbeats that are due in the moment of a piece: either may be first."""
    poured, sent = (performed(script, meanwhile, pours=pours) for pours in (True, False))
    assert poured.client.body.replace(BEAT, b"") == sent.client.body.replace(BEAT, b"")
    assert poured.record.outcome is sent.record.outcome
    assert poured.facts == sent.facts
    assert sent.client.written == 0


def test_all_between_the_first_output_and_the_ending_is_poured() -> None:
    stage = performed([OK, ROLE, *TOKENS, STOP, DONE, END], [], pours=True)
    assert stage.client.written == len(TOKENS) - 1


def test_a_client_that_does_not_read_holds_the_upstream_up() -> None:
    looked: list[int] = []

    def look(stage: Stage) -> None:
        looked.append(stage.wire.exchanges[0].given - len(stage.client.body))

    script = [OK, *[step for token in [ROLE, *TOKENS] for step in (0.1, token)], STOP, DONE, END]
    stage = performed(script, [(0.55, stop_reading), (5.0, look), (6.0, read_on)], pours=True)
    assert looked == [len(TOKEN) + 1]
    assert stage.client.body == b"".join([ROLE, *TOKENS, STOP, DONE])


def test_a_client_that_leaves_before_the_ending_is_written_has_not_had_it_all() -> None:
    """Though the turn has it, and the task that is to send it has not run yet."""
    stage = performed([OK, ROLE, TOKENS[0], 1.0, STOP, 60.0, END], [(1.2, leave)], pours=True, wakes_after=0.5)
    assert stage.record.outcome is Outcome.LEFT
    assert stage.client.body.replace(BEAT, b"") == ROLE + TOKENS[0]


def test_a_defect_of_the_writer_is_raised_in_the_turn() -> None:
    def breaks(stage: Stage) -> None:
        def write(data: bytes) -> None:
            raise ZeroDivisionError

        stage.client.write = write  # type: ignore[method-assign]

    with pytest.raises(ExceptionGroup) as caught:
        performed([OK, 0.1, ROLE, *TOKENS, STOP, DONE, END], [(0.0, breaks)], pours=True)
    assert "ZeroDivisionError" in "".join(traceback.format_exception(caught.value))
