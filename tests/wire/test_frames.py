from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.wire.frames import (
    ACK,
    GOAWAY,
    MAX_CONTROL_FRAME,
    OPAQUE,
    PING,
    PING_FRAME,
    GoAway,
    Inbound,
    error_name,
)

DATA, HEADERS, SETTINGS = 0x0, 0x1, 0x4


def frame(kind: int, payload: bytes, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def goaway(last_stream: int, code: int = 0, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, struct.pack(">II", last_stream, code) + debug)


OUR_PONG = frame(PING, OPAQUE, ACK)


def test_our_ping_is_a_ping_frame() -> None:
    assert frame(PING, OPAQUE) == PING_FRAME


@pytest.mark.parametrize(
    "bytes_for_h2",
    [
        frame(SETTINGS, b""),
        frame(DATA, b"x" * 20_000, stream=1),
        frame(PING, b"theirs!!"),  # which h2 answers
        frame(PING, OPAQUE),
        frame(PING, b"h2's own", ACK),
        frame(PING, b"short", ACK),
        frame(GOAWAY, b"short"),
        frame(GOAWAY, bytes(MAX_CONTROL_FRAME)),
        b"",
    ],
)
def test_what_is_h2_s_business_passes(bytes_for_h2: bytes) -> None:
    inbound = Inbound()
    assert inbound.feed(bytes_for_h2) == bytes_for_h2
    assert inbound.pongs == 0
    assert inbound.goaway is None


def test_the_answer_to_our_ping_is_counted_and_kept_from_h2() -> None:
    inbound = Inbound()
    assert inbound.feed(OUR_PONG + frame(DATA, b"x", stream=1) + OUR_PONG) == frame(DATA, b"x", stream=1)
    assert inbound.pongs == 2


def test_a_goaway_is_noted_and_kept_from_h2() -> None:
    inbound = Inbound()
    assert inbound.feed(goaway(5, 0xB, b"too many pings")) == b""
    assert inbound.goaway == GoAway(5, "ENHANCE_YOUR_CALM")


def test_the_last_goaway_counts() -> None:
    """A graceful shutdown begins with the highest id there is (RFC 9113, section 6.8)."""
    inbound = Inbound()
    inbound.feed(goaway(2**31 - 1) + goaway(3))
    assert inbound.goaway == GoAway(3, "NO_ERROR")


def test_the_reserved_bit_is_no_part_of_the_stream_s_number() -> None:
    inbound = Inbound()
    inbound.feed(goaway(1 | 0x80000000))
    assert inbound.goaway == GoAway(1, "NO_ERROR")


def test_error_codes_that_nobody_knows_are_told_as_numbers() -> None:
    assert (error_name(0x8), error_name(0x99)) == ("CANCEL", "0x99")


pieces = st.one_of(
    st.builds(frame, st.just(DATA), st.binary(max_size=40), st.just(0), st.just(1)),
    st.builds(frame, st.sampled_from([HEADERS, SETTINGS, PING, GOAWAY]), st.binary(max_size=12)),
    st.just(OUR_PONG),
    st.builds(goaway, st.integers(0, 9)),
)


@given(st.lists(pieces, max_size=8), st.data())
def test_however_the_bytes_are_cut_the_same_is_seen(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    whole, cut = Inbound(), Inbound()
    passed = b""
    rest = stream
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        passed += cut.feed(rest[:size])
        rest = rest[size:]
    assert passed == whole.feed(stream)
    assert (cut.pongs, cut.goaway) == (whole.pongs, whole.goaway)
