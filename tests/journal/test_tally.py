"""The tally of answered attempts beside the journal."""

from __future__ import annotations

import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from unbroken.journal import reading, tally
from unbroken.journal.entry import AnsweredCount
from unbroken.journal.tally import note, read

COUNT = AnsweredCount(20_000, "api.deepseek.com", "http://127.0.0.1:10809", "HTTP/2")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "unbroken" / "journal.sqlite3"


def test_what_is_noted_is_read(journal: Path) -> None:
    assert read(journal) == []
    note(journal, [COUNT])
    note(journal, [COUNT, COUNT])
    assert read(journal) == [COUNT] * 3


def test_it_is_bounded(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MOST", 1000)
    for day in range(100):
        note(journal, [AnsweredCount(day, "h", "", "HTTP/2")])
    assert sum(file.stat().st_size for file in journal.parent.iterdir()) < 2500
    days = [count.day for count in read(journal)]
    assert days == list(range(days[0], 100))
    assert 10 < len(days) < 50


def test_several_note_at_once(journal: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: note(journal, [COUNT]), range(200)))
    assert read(journal) == [COUNT] * 200


def test_a_line_that_cannot_be_read_is_left_out(journal: Path) -> None:
    note(journal, [COUNT])
    with journal.with_name(tally.NAME).open("ab") as file:
        file.write(b'\xff\n{"day": "today"}\n\n[]\n{"day":1,"ho')
    assert read(journal) == [COUNT]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_only_its_user_may_read_it(journal: Path) -> None:
    note(journal, [COUNT])
    assert stat.S_IMODE(journal.with_name(tally.NAME).stat().st_mode) == 0o600


def test_it_is_part_of_what_is_read(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "journal_path", lambda: journal)
    note(journal, [COUNT])
    assert reading.read_own().answered == [COUNT]
