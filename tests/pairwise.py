"""Fewer cases that still have every pair of values: what breaks, breaks by one value, or by two that meet."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import combinations
from typing import TypeVar

Case = TypeVar("Case", bound=tuple[Hashable, ...])


def pairwise(cases: Iterable[Case]) -> list[Case]:
    """Some of the cases, in their order, such that every pair of values that any case has is in one of them."""
    pairs = {case: set(combinations(enumerate(case), 2)) for case in cases}
    missing = set().union(*pairs.values())
    chosen = set()
    while missing:
        best = max(pairs, key=lambda case: len(pairs[case] & missing))
        chosen.add(best)
        missing -= pairs[best]
    return [case for case in pairs if case in chosen]
