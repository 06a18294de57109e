from __future__ import annotations

import math

from unbroken.lab.fault import Fault
from unbroken.lab.script import Break, Draft, EndBody, Mark, SendBody, SendHead, Silence, compose, whole

HEAD = SendHead(200, (), "length")
DRAFT: Draft = [
    Mark("before_headers"),
    HEAD,
    Mark("after_headers"),
    SendBody(b"role"),
    Mark("after_role"),
    SendBody(b"token"),
    Mark("after_token"),
    EndBody(),
]


def head(length: int) -> SendHead:
    return SendHead(200, (), "length", length)


def test_without_a_fault_the_draft_is_played() -> None:
    assert compose(DRAFT, None) == [head(9), SendBody(b"role"), SendBody(b"token"), EndBody()]


def test_a_break_ends_the_script_but_not_the_promise_of_its_head() -> None:
    fault = Fault("rst", "after_role")
    assert compose(DRAFT, fault) == [head(9), SendBody(b"role"), Break(fault)]


def test_a_fault_can_wait() -> None:
    fault = Fault("rst", "after_headers", seconds=2)
    assert compose(DRAFT, fault) == [head(9), Silence(2), Break(fault)]


def test_a_clean_end_keeps_its_promise() -> None:
    assert compose(DRAFT, Fault("clean_end", "after_role")) == [head(4), SendBody(b"role"), EndBody()]


def test_a_stall_ends_in_a_plain_close() -> None:
    fin = Fault("fin", "after_role", seconds=5)
    assert compose(DRAFT, Fault("stall", "after_role", seconds=5))[2:] == [Silence(5), Break(fin)]
    assert compose(DRAFT, Fault("stall", "after_role"))[2] == Silence(math.inf)


def test_a_pause_changes_nothing_else() -> None:
    steps = compose(DRAFT, Fault("pause", "after_role", seconds=1))
    assert steps == [head(9), SendBody(b"role"), Silence(1), SendBody(b"token"), EndBody()]


def test_inserted_bytes_count() -> None:
    steps = compose(DRAFT, Fault("raw", "after_role", body=b"!!"))
    assert steps == [head(11), SendBody(b"role"), SendBody(b"!!"), SendBody(b"token"), EndBody()]


def test_an_error_event_is_the_last_event() -> None:
    steps = compose(DRAFT, Fault("error_event", "after_headers", error={"code": "overloaded"}))
    assert isinstance(steps[1], SendBody)
    assert steps[1].data.startswith(b'data: {"error": {')
    assert b'"code": "overloaded"' in steps[1].data
    assert steps == [head(len(steps[1].data)), steps[1], EndBody()]


def test_unless_it_is_followed_by_a_plain_close() -> None:
    fault = Fault("error_event", "after_headers", then="close")
    *told, ending = compose(DRAFT, fault)
    assert told[1:] == compose(DRAFT, Fault("error_event", "after_headers"))[1:-1]
    assert isinstance(ending, Break)
    assert ending.fault.kind == "fin"


def test_short_length_promises_more_than_there_is() -> None:
    steps = compose([*DRAFT[:-1], Mark("after_done"), EndBody()], Fault("short_length", "after_done"))
    assert steps[0] == head(10)


def test_broken_chunks_need_chunks() -> None:
    assert compose(DRAFT, Fault("bad_chunk", "after_role"))[0] == SendHead(200, (), "chunked")


def test_a_status_takes_the_place_of_the_answer() -> None:
    fault = Fault("status", "before_headers", status=429, seconds=3, headers={"Retry-After": "1"}, body=b"slow down")
    silence, answer, *_, end = compose(DRAFT, fault)
    assert silence == Silence(3)
    assert isinstance(answer, SendHead)
    assert answer.status == 429
    assert dict(answer.headers) == {"content-type": "application/json", "retry-after": "1"}
    assert answer.length == 9
    assert end == EndBody()


def test_goaway_goes_on_or_does_not() -> None:
    going_on = Fault("goaway", "after_role")
    closing = Fault("goaway", "after_role", then="close")
    assert compose(DRAFT, going_on)[-3:] == [Break(going_on), SendBody(b"token"), EndBody()]
    assert compose(DRAFT, closing)[-1] == Break(closing)


def test_the_middle_of_an_object_is_between_its_halves() -> None:
    steps = compose(whole(200, b'{"a":1}'), Fault("clean_end", "after_token"))
    assert [step.data for step in steps if isinstance(step, SendBody)] == [b'{"a']


def test_comments_are_no_events() -> None:
    draft: Draft = [HEAD, SendBody(b": hm\n\n: hm\n\ndata: 1\n\ndata: 2\n\n"), EndBody()]
    _, before, _ = compose(draft, Fault("clean_end", "after_events", offset=1))
    assert before == SendBody(b": hm\n\n: hm\n\ndata: 1\n\n")
