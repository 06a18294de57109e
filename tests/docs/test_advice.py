"""The table of advice in the docs and the sentences of the code are the same, and each row names its test."""

from __future__ import annotations

import re

from docs.pages import ROOT
from unbroken.core.advice import Advice

PAGE = ROOT / "docs" / "advice.md"


def test_the_table_has_every_sentence_in_the_order_of_the_code() -> None:
    rows = re.findall(r"^\| (.*) \| .* \| `(test_\w+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert rows == [(one.value, f"test_{one.name.lower()}") for one in Advice]


def test_every_test_that_the_page_names_is_there() -> None:
    tests = (ROOT / "tests" / "core" / "test_advice.py").read_text("utf-8")
    named = re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8"))
    assert [name for name in named if f"def {name}(" not in tests] == []
