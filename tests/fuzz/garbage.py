"""Garbage for Hypothesis to draw: what was recorded or written by hand, changed until it is something else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

JUNK: list[Any] = [
    *(None, True, False, 0, -1, 2**31, 2**63, 10**400, -0.0, 1e308, float("nan"), float("inf")),
    *("", " ", "null", "stop", "\ud800", "\0", "\u202e", "x" * 300),
    *([], [[]], [None], {}, {"": {}}, [{"index": -1}], {"type": None}, {"error": []}),
]
"""Values in place of those that a format has."""

SIZES = st.lists(st.integers(1, 700), min_size=1, max_size=4) | st.sampled_from([[1], [4096]])


def mutated(seeds: Sequence[bytes], tokens: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes of a format, changed at a few places.

    Args:
        seeds: whole examples of it.
        tokens: words that mean something in it.
    """

    @st.composite
    def change(draw: st.DrawFn) -> bytes:
        data = draw(st.sampled_from(seeds))
        for _ in range(draw(st.integers(0, 4))):
            data = _changed(draw, data, seeds, tokens)
        return data

    return st.one_of(change(), change(), st.binary(max_size=200), st.lists(st.sampled_from(tokens)).map(b"".join))


def _changed(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    match draw(st.integers(0, 6)):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[to:]
        case 2:
            return data[:to] + data[at:to] + data[to:]
        case 3:
            return data[:at] + draw(st.binary(max_size=8)) + data[at:]
        case 4:
            return data[:at] + draw(st.sampled_from(tokens)) + data[at:]
        case 5:
            return data[:at] + draw(st.sampled_from(seeds))[at:]
        case _:
            return _with_junk(draw, data)


def _with_junk(draw: st.DrawFn, data: bytes) -> bytes:
    """Put a value of another kind into one of the JSON documents of a stream, or of a body that is one."""
    lines = data.split(b"\n")
    places = [number for number, line in enumerate(lines) if line.removeprefix(b"data: ").startswith((b"{", b"["))]
    if not places:
        return data
    number = draw(st.sampled_from(places))
    field = b"data: " if lines[number].startswith(b"data: ") else b""
    try:
        document = json.loads(lines[number].removeprefix(field))
    except (ValueError, RecursionError):
        return data
    lines[number] = field + json.dumps(_replaced(draw, document)).encode()
    return b"\n".join(lines)


def _replaced(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value in which one value, somewhere, is another."""
    if not value or not isinstance(value, dict | list) or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(JUNK))
    if isinstance(value, list):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _replaced(draw, value[at]), *value[at + 1 :]]
    name = draw(st.sampled_from(sorted(value)))
    if draw(st.integers(0, 9)) == 0:
        return {key: kept for key, kept in value.items() if key != name}
    return {**value, name: _replaced(draw, value[name])}
