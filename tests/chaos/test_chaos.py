"""A thousand turns with faults at random bytes; ``make chaos`` runs forty thousand."""

from __future__ import annotations

import pytest

from chaos.driver import Chaos


@pytest.mark.slow
def test_a_thousand_turns_keep_the_rule() -> None:
    counts = Chaos(turns=1000, seed=20261126).run()
    assert counts["violations"] == []
    assert counts["leaks"] == 0
    assert counts["whole"] + counts["cut"] + counts["handed on"] + counts["error"] == 1000
    assert counts["whole"] > 300
    assert counts["cut"] > 100
    assert counts["requests"] > 1000
