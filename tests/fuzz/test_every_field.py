"""Every value of every recorded event, one after the other, is of another kind: no reader expects what it knows not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from fuzz.targets import NAMES, TARGETS, recorded, request_of
from unbroken.core.dialect import Call, Dialect
from unbroken.core.dialects import DIALECTS, recognise
from unbroken.core.sse import Event, Parser
from unbroken.errors import DecodeError

OTHERS: tuple[Any, ...] = ([], {}, None, -1, "", True, [[]], {"type": []})

EVENTS = 6
"""How many events of a stream are read."""


def documents(name: str) -> Iterator[tuple[str, Any]]:
    """The events of a dialect, one of each shape, and what their types are."""
    seen = set()
    for body in recorded(name):
        with contextlib.suppress(DecodeError):
            for event in Parser().feed(body):
                with contextlib.suppress(ValueError):
                    document = json.loads(event.data)
                    shape = event.type, _shape(document)
                    if shape not in seen:
                        seen.add(shape)
                        yield event.type, document


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        inner = ",".join(f"{name}:{_shape(one)}" for name, one in sorted(value.items()))
        return f"{{{inner}}}" if "type" not in value else f"{value['type']}{{{inner}}}"
    return f"[{','.join(map(_shape, value))}]" if isinstance(value, list) else type(value).__name__


def changed(value: Any, others: Sequence[Any] = OTHERS) -> Iterator[Any]:
    """The value with each value inside of it exchanged."""
    yield from others
    if isinstance(value, dict):
        for name, inner in value.items():
            yield {key: kept for key, kept in value.items() if key != name}
            yield from ({**value, name: other} for other in changed(inner, others))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from ([*value[:at], other, *value[at + 1 :]] for other in changed(inner, others))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_value_of_another_kind_is_read_over_or_is_a_decode_error(name: str) -> None:
    dialect = next(one for one in DIALECTS if one.name == name)
    call = recognise(request_of(name))
    assert call is not None
    resumption = dialect.resumption()
    count = 0
    for kind, document in documents(name):
        for other in changed(document):
            event = Event(json.dumps(other).encode(), kind)
            for read in (dialect.reader(call.generation).read, lambda event: list(dialect.decoder().decode(event))):
                with contextlib.suppress(DecodeError):
                    read(event)
            if resumption:
                resumption.bookmark().read(event)
            count += 1
    assert count > 200


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_so_is_one_in_the_middle_of_a_stream(name: str) -> None:
    dialect = next(one for one in DIALECTS if one.name == name)
    call = recognise(request_of(name))
    assert call is not None
    for body in recorded(name):
        with contextlib.suppress(DecodeError):
            events = list(Parser().feed(body))
            for at, event in enumerate(events[:EVENTS]):
                with contextlib.suppress(ValueError):
                    for other in changed(json.loads(event.data), ([], {})):
                        changed_event = Event(json.dumps(other).encode(), event.type)
                        _read([*events[:at], changed_event, *events[at + 1 : EVENTS]], dialect, call)


def _read(events: list[Event], dialect: Dialect, call: Call) -> None:
    reader, decoder = dialect.reader(call.generation), dialect.decoder()
    for event in events:
        with contextlib.suppress(DecodeError):
            reader.read(event)
        with contextlib.suppress(DecodeError):
            list(decoder.decode(event))


@pytest.mark.parametrize("name", NAMES)
def test_so_is_one_of_an_error_response(name: str) -> None:
    for body in recorded(name, "body"):
        with contextlib.suppress(ValueError):
            for other in changed(json.loads(body)):
                TARGETS[name].feed(json.dumps(other).encode(), [4096])
