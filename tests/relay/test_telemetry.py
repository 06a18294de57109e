"""The access log: what a line says, and that nobody but the relay can write one."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from relay.noted import cut
from unbroken.core.actions import RetryEvent
from unbroken.core.failures import Failure
from unbroken.relay.access import MAX_TEXT, AccessLog, Entry, timestamp
from unbroken.relay.records import Outcome

FORMATS = pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])

FORGED = "cafe0002 POST /forged · 200 answered · 0.0 s"
HOSTILE = [
    f"/v1\n{FORGED}",
    f"/v1\r{FORGED}",
    f"/v1\r\n{FORGED}",
    f"/v1\u2028{FORGED}",
    f"/v1\x85{FORGED}",
    "/v1\x1b[2K\x1b[1A\x1b[31mred",
    "/v1\x9b31mred",
    "/v1\x7f\x08\x00",
    "/v1\u202egnp.exe",
    "/v1\U000e0041",
    "/v1\ud800",
]


def entry(**fields: Any) -> Entry:
    known = {
        "time": "2026-07-01T12:00:00.000Z",
        "id": "cafe0001",
        "method": "POST",
        "path": "/v1/chat/completions",
        "upstream": "lab",
        "dialect": "openai-chat",
        "status": 200,
        "outcome": Outcome.ANSWERED,
        "attempts": 1,
        "elapsed": 5.25,
    }
    return Entry(**{**known, **fields})


def written(told: Entry, **options: bool) -> list[str]:
    lines: list[str] = []
    AccessLog(lines.append, **options).ended(told)
    return lines


def line(told: Entry, **options: bool) -> str:
    (only,) = written(told, **options)
    return only


def again(*, advice: str = "", **lost: Any) -> RetryEvent:
    return RetryEvent("replay", 1, 4, Failure.RESET, cut(1, 60.0, **lost), 0.0, advice)


class TestText:
    def test_a_turn_that_went_well(self) -> None:
        told = entry(first_output=1.23, bytes_in=10, bytes_out=20)
        assert line(told) == "cafe0001 POST /v1/chat/completions · 200 answered · 5.2 s · first output 1.2 s"

    def test_a_turn_that_was_saved_says_what_was_lost(self) -> None:
        told = entry(first_output=1.0, attempts=2, replays=1, lost=("reset@prelude",))
        assert line(told).endswith("· first output 1.0 s · 2 attempts, lost reset@prelude")

    def test_a_failure_says_why(self) -> None:
        told = entry(status=None, outcome=Outcome.LEFT, attempts=0, detail="it was so")
        assert line(told) == "cafe0001 POST /v1/chat/completions · - left · 5.2 s · it was so"

    def test_every_retry_and_replay_has_a_line_and_its_advice_another(self) -> None:
        lines: list[str] = []
        AccessLog(lines.append).again("cafe0001", again(advice="take another path"))
        assert lines == [
            "cafe0001 ↻ cut after 61.0 s, before any output (connection reset) · replaying, attempt 2 of 4",
            "cafe0001   take another path",
        ]


class TestJson:
    def test_says_everything(self) -> None:
        told = entry(
            first_output=1.5,
            attempts=3,
            retries=1,
            replays=1,
            lost=("busy@headers", "reset@prelude"),
            bytes_in=10,
            bytes_out=20,
            heartbeats=2,
            detail="why",
        )
        assert json.loads(line(told, as_json=True)) == {
            "time": "2026-07-01T12:00:00.000Z",
            "id": "cafe0001",
            "method": "POST",
            "path": "/v1/chat/completions",
            "upstream": "lab",
            "dialect": "openai-chat",
            "status": 200,
            "outcome": "answered",
            "attempts": 3,
            "retries": 1,
            "replays": 1,
            "lost": ["busy@headers", "reset@prelude"],
            "elapsed": 5.25,
            "first_output": 1.5,
            "bytes_in": 10,
            "bytes_out": 20,
            "heartbeats": 2,
            "detail": "why",
        }

    def test_has_one_line_for_a_request_however_many_attempts_it_takes(self) -> None:
        lines: list[str] = []
        AccessLog(lines.append, as_json=True).again("cafe0001", again(advice="take another path"))
        assert lines == []


@FORMATS
class TestHostile:
    @pytest.mark.parametrize("path", HOSTILE, ids=ascii)
    def test_a_path_or_a_detail_cannot_forge_a_line_or_speak_to_a_terminal(self, path: str, as_json: bool) -> None:
        for told in (entry(path=path), entry(detail=path)):
            said = line(told, as_json=as_json)
            assert said.isprintable()
            assert len(said.splitlines()) == 1
            if as_json:
                assert json.loads(said)["id"] == "cafe0001"

    def test_a_long_path_or_detail_is_cut_short(self, as_json: bool) -> None:
        said = line(entry(path="/" + "a" * 60_000, detail="b" * 60_000), as_json=as_json)
        assert "a" * (MAX_TEXT - 1) + "…" in said
        assert "b" * MAX_TEXT + "…" in said
        assert len(said.encode()) < 4096  # what a pipe takes at once, of several processes too

    def test_the_words_about_an_attempt_are_as_plain(self, as_json: bool) -> None:
        lines: list[str] = []
        lost = again(advice=f"x\n{FORGED}", detail=f"x\x1b[2K\n{FORGED}", status=503)
        AccessLog(lines.append, as_json=as_json).again("cafe0001", lost)
        assert len(lines) == (0 if as_json else 2)
        assert all(said.isprintable() and said.startswith("cafe0001") for said in lines)


@FORMATS
@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (entry(), False),
        (entry(outcome=Outcome.PASSED, attempts=0), False),
        (entry(attempts=2, retries=1), True),
        (entry(attempts=2, replays=1), True),
        *((entry(outcome=outcome), True) for outcome in Outcome if outcome not in ("answered", "passed")),
    ],
    ids=lambda value: f"{value.outcome}-{value.attempts}" if isinstance(value, Entry) else "",
)
def test_quiet_shows_what_went_wrong_or_was_saved(told: Entry, shown: bool, as_json: bool) -> None:
    assert len(written(told, as_json=as_json, quiet=True)) == shown


def test_the_time_is_utc_to_the_millisecond() -> None:
    before = datetime.datetime.now(datetime.UTC)
    said = timestamp()
    assert said.endswith("Z")
    assert len(said) == len("2026-07-01T12:00:00.000Z")
    assert abs(datetime.datetime.fromisoformat(said) - before) < datetime.timedelta(seconds=5)
