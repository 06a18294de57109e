"""Writing to the journal holds nothing up, and fails nothing."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import threading
import time
from pathlib import Path

import pytest

from journal.made import HOST, NOW, attempt
from unbroken.core.failures import Failure, Phase
from unbroken.journal import database, tally, writing
from unbroken.journal.database import read
from unbroken.journal.writing import JournalWriter, keep_turn
from waiting import poll

ANSWERED = attempt(None, Phase.COMPLETE, status=200)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "journal.sqlite3"
    monkeypatch.setattr(writing, "journal_path", lambda: path)
    return path


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PATIENCE", 60.0)


def test_a_turn_that_lost_nothing_is_counted_without_sqlite(path: Path) -> None:
    keep_turn([ANSWERED], NOW, "run")
    assert not path.exists()
    (count,) = tally.read(path)
    assert (count.host, count.attempts) == (HOST, 1)


def test_a_turn_of_which_nothing_came_writes_nothing(path: Path) -> None:
    keep_turn([attempt(Failure.CANCELLED), attempt(Failure.REFUSED)], NOW, "run")
    assert [*path.parent.iterdir()] == []


def test_a_lost_attempt_is_written_with_the_answer_that_followed(path: Path) -> None:
    writing_now = time.time()
    keep_turn([attempt(), ANSWERED], writing_now, "run")
    contents = read(path)
    assert [kept.face for kept in contents.entries] == ["run"]
    assert [count.attempts for count in contents.answered] == [1]


def test_a_journal_that_cannot_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "unbroken" / "journal.sqlite3", Path("nul\0"), None):
        monkeypatch.setattr(writing, "journal_path", lambda path=path: path)
        keep_turn([attempt()], NOW, "run")
        writer = JournalWriter("relay")
        writer.add([attempt()], NOW)
        writer.close()
    assert capsys.readouterr() == ("", "")


def test_a_python_without_sqlite_does_without(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "unbroken.journal.database", None)
    keep_turn([attempt()], NOW, "run")
    assert not path.exists()
    assert capsys.readouterr() == ("", "")


def test_a_system_without_threads_does_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    keep_turn([attempt()], NOW, "run")
    writer = JournalWriter("relay")
    writer.add([attempt()], NOW)
    writer.close()
    assert not path.exists()


def test_a_locked_journal_is_waited_for_only_so_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_turn([attempt()], NOW, "run")
    monkeypatch.setattr(writing, "PATIENCE", 0.01)
    monkeypatch.setattr(database, "BUSY", 60.0)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        keep_turn([attempt()], NOW, "run")
        waiting = [thread for thread in threading.enumerate() if thread.name == "unbroken-journal"]
        assert waiting, "it was not waited for to its end"
    for thread in waiting:
        thread.join(60)


def test_a_relay_writes_on_a_thread_of_its_own(path: Path) -> None:
    writer = JournalWriter("relay")
    assert threading.active_count() == 1 or "unbroken-journal" not in {one.name for one in threading.enumerate()}
    writer.add([attempt(), ANSWERED], time.time())
    assert [kept.face for kept in poll(lambda: read(path).entries, 60.0)] == ["relay"]
    writer.close()


def test_counts_of_a_relay_are_written_at_the_end(path: Path) -> None:
    writer = JournalWriter("relay")
    for _ in range(3):
        writer.add([ANSWERED], time.time())
    writer.close()
    contents = read(path)
    assert contents.entries == []
    assert [count.attempts for count in contents.answered] == [3]


def test_what_waits_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "WAITING", 10)
    monkeypatch.setattr(JournalWriter, "_start", lambda self, path: None)
    writer = JournalWriter("relay")
    for number in range(30):
        writer.add([attempt(), attempt(None, Phase.COMPLETE, host=f"h{number}")], NOW)
    assert len(writer._entries) == len(writer._answered) == 10
