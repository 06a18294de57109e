"""The lanes: each test is in exactly one of fast (no mark), timing and slow; and who shares a fixture shares a worker.

The Makefile chooses lanes by their marks. What is wrong with a test's marks ends the collection.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

SLOW_FIXTURES = {"agent", "browser", "every_row", "local_model", "v2ray", "wheel"}
"""Parts that take long to start, or that not every machine has."""

STOOD_FOR = {"side": {"uvloop"}, "face": {"client-asyncio", "driver-trio"}}
"""Parameters with whose values tests are slow ones: other values run the same code, or that from which it is made.

uvloop is driven as asyncio's own loop is; the asynchronous client has the asynchronous driver under the reader of the
blocking one; and trio runs that driver over a wire whose own tests run on trio too.
"""

CONTROL = "promptly"
"""The fixture that compares a time with what a control took beside it."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wrong = [f"{item.nodeid} {complaint}" for item in items for complaint in complaints(item)]
    if wrong:
        raise pytest.UsageError("\n".join(wrong))
    for item in items:
        if is_stood_for(item):
            item.add_marker(pytest.mark.slow)
        if shares_a_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def complaints(item: pytest.Item) -> Iterator[str]:
    """Why a test is in no lane, or in two."""
    slow, timing, uses = "slow" in item.keywords, "timing" in item.keywords, set(getattr(item, "fixturenames", ()))
    if slow and timing:
        yield "is marked both slow and timing"
    if not slow and (parts := uses & SLOW_FIXTURES):
        yield f"uses {', '.join(sorted(parts))} and is not marked slow"
    if not slow and not timing and CONTROL in uses:
        yield "compares a time with a control and is marked neither timing nor slow"
    if timing and CONTROL not in uses:
        yield f"is marked timing and has no control beside it (the fixture {CONTROL})"


def is_stood_for(item: pytest.Item) -> bool:
    """Whether another one that is not slow runs the same code."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or "timing" in item.keywords:
        return False
    return any(str(callspec.params.get(name)) in values for name, values in STOOD_FOR.items())


def shares_a_fixture(item: pytest.Item) -> bool:
    """Whether a fixture is made for the whole module: then one worker runs all of it, and makes the fixture once."""
    if not isinstance(item, pytest.Function) or item.get_closest_marker("xdist_group"):
        return False
    return any(made[-1].scope == "module" for made in item._fixtureinfo.name2fixturedefs.values())
