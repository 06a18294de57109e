"""What a scenario file may say: its keys, and the values of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from unbroken.lab.answer import Framing, ScriptedAnswer
from unbroken.lab.fault import Fault, parse_fault

ANSWERED = "none"
"""The word for an attempt that meets no fault."""

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
_Times = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class _Key(NamedTuple):
    """What a key may hold: a type for msgspec, and the words for it."""

    type: Any
    allowed: str


_TEXT = _Key(str, "a text")
_FLAG = _Key(bool, "true or false")
_SECONDS = _Key(_Seconds, "seconds, from 0 to 3600")
_SCENARIO: Mapping[str, _Key] = {
    "about": _TEXT,
    "faults": _Key(list[Any], "a list of faults, each a text (kind@point) or a table"),
    "draw": _Key(_Times, "a whole number from 1 to 1000"),
    "seed": _Key(int, "a whole number"),
    "dialects": _Key(list[str], "a list of the names of dialects"),
    "http": _Key(Literal["1.1", "2"], '"1.1" or "2"'),
    "tls": _FLAG,
    "answer": _Key(dict[str, Any], "a table"),
    "retryable": _FLAG,
    "patience": _SECONDS,
    "told": _TEXT,
}
_FAULT: Mapping[str, _Key] = {
    "fault": _Key(str, "a text: kind@point"),
    "times": _Key(_Times, "a whole number from 1 to 1000"),
    "headers": _Key(dict[str, str], "a table of texts"),
    "body": _TEXT,
    "error": _Key(dict[str, Any], "a table"),
    "close_notify": _FLAG,
    "seconds": _SECONDS,
    "last_stream_id": _Key(Annotated[int, msgspec.Meta(ge=0, lt=2**31)], "a whole number"),
    "then": _Key(Literal["go_on", "close"], '"go_on" or "close"'),
}
_ANSWER: Mapping[str, _Key] = {
    "text": _TEXT,
    "reasoning": _Key(list[str], "a list of texts"),
    "think": _SECONDS,
    "think_at": _Key(
        Literal["before_headers", "after_headers", "after_role"], "before_headers, after_headers or after_role"
    ),
    "comments": _Key(Annotated[int, msgspec.Meta(ge=0, le=1000)], "a whole number from 0 to 1000"),
    "gap": _SECONDS,
    "finish_reason": _TEXT,
    "done": _FLAG,
    "framing": _Key(Framing, '"chunked", "length" or "close"'),
}


def read_table(table: Mapping[str, Any], answer: ScriptedAnswer) -> dict[str, Any]:
    """Return the arguments of a scenario that a table names.

    Args:
        table: the file's.
        answer: the answer that it changes.

    Raises:
        ValueError: a key is unknown, or its value is not allowed.
    """
    found = _checked(table, _SCENARIO, "")
    if not found.get("about"):
        raise ValueError("about is missing: a sentence that says what goes wrong")
    if "faults" in found:
        found["faults"] = [fault for number, given in enumerate(found["faults"]) for fault in _faults(given, number)]
    if "answer" in found:
        found["answer"] = replace(answer, **_checked(found["answer"], _ANSWER, "answer."))
    return found


def _faults(given: Any, number: int) -> Sequence[Fault | None]:
    """Return the faults of one entry of the list."""
    where = f"faults[{number}]"
    if isinstance(given, str):
        return [_fault(given, {}, where)]
    if not isinstance(given, dict):
        raise ValueError(f"{where}: {given!r} is no fault; allowed is {_SCENARIO['faults'].allowed}")
    members = _checked(given, _FAULT, f"{where}.")
    if "fault" not in members:
        raise ValueError(f"{where}: fault is missing: kind@point")
    times = members.pop("times", 1)
    return [_fault(members.pop("fault"), members, where)] * times


def _fault(text: str, members: dict[str, Any], where: str) -> Fault | None:
    if text == ANSWERED and not members:
        return None
    if "body" in members:
        members["body"] = members["body"].encode()
    try:
        return replace(parse_fault(text), **members)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _checked(table: Mapping[str, Any], keys: Mapping[str, _Key], where: str) -> dict[str, Any]:
    """Return a table whose keys are known, with values that are allowed."""
    found = {}
    for name, value in table.items():
        if name not in keys:
            raise ValueError(f"{where}{name}: unknown key; allowed are {', '.join(keys)}")
        try:
            found[name] = msgspec.convert(value, keys[name].type)
        except msgspec.ValidationError:
            raise ValueError(f"{where}{name}: {value!r} is not allowed; allowed is {keys[name].allowed}") from None
    return found
