"""The relay's own attempts in the journal, and what they tell: ``/_unbroken/findings``."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

from journal.made import HOST, PROXY, attempt, entry
from relay.serving import Call, Serve, Served
from unbroken.core.failures import Failure, Phase
from unbroken.core.report import AttemptReport
from unbroken.journal import place
from unbroken.journal.database import read, write
from unbroken.lab import Upstream
from unbroken.relay.recorder import Outcome, RequestRecord
from waiting import poll

FINDINGS = "/_unbroken/findings"
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's journal."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(place.sys, "platform", "linux")
    return tmp_path / "unbroken" / place.NAME


def lose(served: Served, *attempts: AttemptReport) -> None:
    """Record a turn of these attempts, as if the relay had run it."""
    record = RequestRecord(
        id="cafe0001",
        started=time.time() - 100,
        elapsed=100.0,
        method="POST",
        path="/v1/chat/completions",
        upstream="lab",
        dialect="openai-chat",
        outcome=Outcome.LOST,
        attempts=attempts,
    )

    async def end() -> None:
        served.relay.recorder.live[record.id] = None  # type: ignore[assignment]
        served.relay.recorder.end(record)

    served.run(end)


def test_without_a_loss_there_are_none(served: Served, call: Call) -> None:
    answer = call(served).ask("GET", FINDINGS)
    assert (answer.status, answer.value("content-type")) == (200, "application/json")
    assert answer.json == {"findings": [], "idle_limit": None, "path": None}


@pytest.mark.parametrize("journal", ["", "relay"])
def test_a_pattern_is_told_at_once_and_counted_once(
    journal: str, serve: Serve, lab: Upstream, call: Call, path: Path
) -> None:
    served = serve(lab.url, journal=journal)
    for _ in range(3):
        lose(served, attempt())
    if journal:
        poll(lambda: len(read(path).entries) == 3, PATIENCE)
    told = call(served).ask("GET", FINDINGS).json
    assert (told["idle_limit"], told["path"]) == (60.0, {"host": HOST, "proxy": PROXY, "http_version": "HTTP/1.1"})
    (finding,) = told["findings"]
    assert finding.keys() == {"code", "text", "next"}
    assert finding["code"] == "past_idle_cuts"
    assert finding["text"].startswith(f"3 attempts over HTTP/1.1 through {PROXY} to {HOST} were cut after about 60 s")
    assert path.exists() == bool(journal)


def test_what_an_earlier_relay_has_lost_counts_and_what_others_have_does_not(
    serve: Serve, lab: Upstream, call: Call, path: Path
) -> None:
    now = time.time()
    write(path, [entry(now - 60 * i, face="relay") for i in range(4)] + [entry(now, face="run")] * 9, [], now)
    told = call(serve(lab.url, journal="relay")).ask("GET", FINDINGS).json
    assert told["findings"][0]["text"].startswith("4 attempts")
    assert call(serve(lab.url)).ask("GET", FINDINGS).json["findings"] == [], "the journal is turned off"


@pytest.mark.parametrize("broken", ["corrupt", "other version", "directory"])
def test_a_journal_that_cannot_be_read_leaves_the_last_turns(
    broken: str, serve: Serve, lab: Upstream, call: Call, path: Path
) -> None:
    path.parent.mkdir()
    if broken == "corrupt":
        path.write_bytes(b"garbage" * 1000)
    elif broken == "directory":
        path.mkdir()
    else:
        with contextlib.closing(sqlite3.connect(path)) as later:
            later.execute("PRAGMA user_version = 9")
    served = serve(lab.url, journal="relay")
    lose(served, *[attempt()] * 3)
    assert call(served).ask("GET", FINDINGS).json["idle_limit"] == 60.0


def test_what_was_answered_is_counted_when_the_relay_ends(serve: Serve, lab: Upstream, path: Path) -> None:
    served = serve(lab.url, journal="relay")
    lose(served, attempt(None, Phase.COMPLETE, status=200))
    served.close()
    assert [count.attempts for count in read(path).answered] == [1]


def test_the_page_links_them(served: Served, call: Call) -> None:
    page = call(served).ask("GET", "/_unbroken/").body.decode()
    assert '<a href="findings">' in page


def test_they_are_behind_the_guard(serve: Serve, lab: Upstream, call: Call) -> None:
    served = serve(lab.url, token="let-me-in")
    lose(served, *[attempt()] * 3)
    refused = call(served).ask("GET", FINDINGS)
    assert refused.status == 401
    assert HOST not in refused.body.decode()
    assert call(served).ask("GET", FINDINGS, [("x-unbroken-token", "let-me-in")]).json["findings"]
    assert call(served).ask("GET", FINDINGS, [("Host", "evil.example")]).status in (400, 421)


def test_nothing_of_a_turn_but_its_path_is_told(serve: Serve, lab: Upstream, call: Call) -> None:
    served = serve(lab.url)
    lost = [attempt(Failure.RESET, Phase.OUTPUT, detail="SECRET", finish_reason="SECRET", path="SECRET")] * 3
    lose(served, *lost)
    told = call(served).ask("GET", FINDINGS)
    assert told.json["findings"]
    assert b"SECRET" not in told.body
