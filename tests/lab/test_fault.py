from __future__ import annotations

from typing import Any

import pytest

from unbroken.lab import KINDS, POINTS, Fault, parse_fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("rst@after_headers", Fault("rst", "after_headers")),
        ("rst=0.5@after_role", Fault("rst", "after_role", seconds=0.5)),
        ("status=429@before_headers", Fault("status", "before_headers", status=429)),
        ("stall=5@after_role", Fault("stall", "after_role", seconds=5)),
        ("stall@connect", Fault("stall", "connect")),
        ("rst_stream=8@after_token", Fault("rst_stream", "after_token", code=8)),
        ("goaway=0@after_role", Fault("goaway", "after_role", code=0)),
        (r"raw=: hi\n\n@after_role", Fault("raw", "after_role", body=b": hi\n\n")),
    ],
)
def test_reads_faults(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        *("rst@after_headers", "rst=0.5@after_role", "status=429@before_headers", "stall@connect", "goaway@after_role"),
        *("rst_stream=8@after_token", "fin@after_characters:131", "clean_end@after_bytes:0", r"raw=: a\n@after_role"),
    ],
)
def test_a_fault_has_its_words(text: str) -> None:
    assert parse_fault(text).words == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rst", "kind@point"),
        ("explode@after_role", "unknown kind"),
        ("rst@lunch", "unknown point"),
        ("status@after_role", "status cannot happen at after_role"),
        ("refused_stream@after_headers", "refused_stream cannot happen"),
        ("pause@after_role", "pause needs seconds"),
        ("raw@after_role", "raw needs a body"),
        ("stall=long@after_role", "float"),
    ],
)
def test_says_what_is_wrong_with_a_fault(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_fault(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["nothing", "explode@after_role", "rst@lunch"])
def test_names_the_kinds_and_the_points(text: str) -> None:
    with pytest.raises(ValueError, match="kinds are") as caught:
        parse_fault(text)
    assert all(word in str(caught.value) for word in (*KINDS, *POINTS))


@pytest.mark.parametrize(("kind", "at"), [("explode", "connect"), ("rst", "lunch"), ("clean_end", "before_headers")])
def test_a_fault_checks_itself(kind: Any, at: Any) -> None:
    with pytest.raises(ValueError, match=r"explode|lunch|before_headers"):
        Fault(kind, at)


def test_error_codes_have_defaults_by_kind() -> None:
    assert Fault("rst_stream", "after_role").error_code == 0x2
    assert Fault("refused_stream", "before_headers").error_code == 0x7
    assert Fault("goaway", "after_role").error_code == 0x0
    assert Fault("goaway", "after_role", code=0xB).error_code == 0xB
