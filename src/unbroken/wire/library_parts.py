"""The undocumented parts of httpcore2 that the wire uses, and the check that they are there.

``pyproject.toml`` bounds httpcore2 to one minor version for them. What only shows when a request is made (the words of
errors, by which :mod:`unbroken.wire.mapping` tells failures apart) is checked by ``tests/wire/test_library_parts.py``.
"""

from __future__ import annotations

import functools
from types import CodeType

import httpcore2

from unbroken.errors import UsageError

HTTPCORE2 = "2.16"
"""The minor version whose parts are used."""

ATTRIBUTES: dict[type, frozenset[str]] = {
    httpcore2.HTTPConnection: frozenset({"_connection"}),
    httpcore2.AsyncHTTPConnection: frozenset({"_connection"}),
    httpcore2.HTTP11Connection: frozenset({"_h11_state"}),
    httpcore2.AsyncHTTP11Connection: frozenset({"_h11_state"}),
    httpcore2.HTTP2Connection: frozenset({"_h2_state"}),
    httpcore2.AsyncHTTP2Connection: frozenset({"_h2_state"}),
}
"""Attributes of instances that are used to tell whether more has come than the response."""

TRACED = "send_request_headers"
"""The step, in the extension ``trace``, at which a request is about to be sent."""


@functools.cache
def check_httpcore2() -> None:
    """Refuse an httpcore2 without the parts that are used here.

    Raises:
        UsageError: a part is gone; the message names it, and the version that has it.
    """
    gone = [f"{kind.__name__}.{name}" for kind, names in ATTRIBUTES.items() for name in sorted(names - _given(kind))]
    gone += [f"{kind.__name__}'s trace of {TRACED}" for kind in _TRACING if TRACED not in _constants(kind)]
    if gone:
        raise UsageError(
            f"this httpcore2 lacks what is used of it ({', '.join(gone)}): pip install 'httpcore2~={HTTPCORE2}.0'"
        )


_TRACING = tuple(kind for kind, names in ATTRIBUTES.items() if "_connection" not in names)


def _given(kind: type) -> set[str]:
    """Return the names that occur where an instance is made."""
    code: CodeType | None = getattr(vars(kind).get("__init__"), "__code__", None)
    return set(code.co_names) if code else set()


def _constants(kind: type) -> set[object]:
    """Return the texts that occur where a request is handled."""
    methods = (vars(kind).get(name) for name in ("handle_request", "handle_async_request"))
    codes: list[CodeType | None] = [getattr(method, "__code__", None) for method in methods]
    return {constant for code in codes if code for constant in code.co_consts if isinstance(constant, str)}
