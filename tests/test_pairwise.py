from __future__ import annotations

from itertools import product

from pairwise import pairwise


def test_every_pair_that_there_is_is_still_there() -> None:
    cases = [case for case in product("abc", (1, 2, 3, 4), (True, False)) if case[:2] != ("a", 4)]
    chosen = pairwise(cases)
    assert len(chosen) < 15
    assert chosen == [case for case in cases if case in chosen]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert {(case[i], case[j]) for case in chosen} == {(case[i], case[j]) for case in cases}
