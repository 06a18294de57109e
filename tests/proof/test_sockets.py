"""A sample of the schedules on real sockets: ``make prove-sockets`` plays 2,000."""

from __future__ import annotations

import pytest

from proof.sockets import SEED, sample


@pytest.mark.slow
def test_three_hundred_schedules_on_sockets_keep_the_rule() -> None:
    taken = sample(300, SEED)
    assert taken.broken == []
    assert taken.counts["schedules"] == 300
    assert taken.counts["requests"] > 300
