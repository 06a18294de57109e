"""The journal's file: bounded, private, shared by processes, and harmless where it is broken."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cli.programs import environment
from journal.made import NOW, entry
from unbroken.core.failures import Failure
from unbroken.journal import database
from unbroken.journal.database import OtherVersion, read, write
from unbroken.journal.entry import DAY, AnsweredCount, JournalContents

TODAY = int(NOW) // DAY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "unbroken" / "journal.sqlite3"


def test_what_is_written_is_read(path: Path) -> None:
    entries = [entry(NOW, lowered_ping=20.0, status=200, path_source="--proxy"), entry(NOW + 1, Failure.RESET)]
    counts = [AnsweredCount(TODAY, "h", "", "HTTP/2", 3)]
    write(path, entries, counts, NOW)
    assert read(path) == JournalContents(entries, counts)


def test_there_may_be_none(path: Path) -> None:
    assert read(path) == JournalContents()
    assert not path.parent.exists()


def test_counts_of_one_day_and_path_are_added(path: Path) -> None:
    for number in (1, 2):
        write(path, [], [AnsweredCount(TODAY, "h", "", "HTTP/2", number)], NOW)
    assert read(path).answered == [AnsweredCount(TODAY, "h", "", "HTTP/2", 3)]


# Bounds


def test_the_newest_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MOST", 10)
    for number in range(5):
        write(path, [entry(NOW + number, silent=i) for i in range(7)], [], NOW)
    assert [kept.at - NOW for kept in read(path).entries] == [3.0] * 3 + [4.0] * 7


def test_an_outage_does_not_push_the_others_out(path: Path) -> None:
    write(path, [entry(), entry()], [], NOW)
    for _ in range(6):
        write(path, [entry(NOW + 1, Failure.CONNECTION_REFUSED)] * 1000, [], NOW)
    entries = read(path).entries
    assert len(entries) == database.SHARE + 2
    assert sum(kept.attempt.failure == "closed" for kept in entries) == 2


def test_the_file_stays_small(path: Path) -> None:
    for host in range(8):
        write(path, [entry(NOW, host="h" * 250 + str(host), proxy="p" * 250)] * 1000, [], NOW)
    assert len(read(path).entries) == database.MOST
    assert path.stat().st_size < 8 * 1024 * 1024


def test_the_old_is_dropped(path: Path) -> None:
    old = NOW - database.AGE - DAY
    write(path, [entry(old)], [AnsweredCount(int(old) // DAY, "h", "", "")], old)
    write(path, [entry()], [AnsweredCount(TODAY, "h", "", "")], NOW)
    contents = read(path)
    assert [kept.at for kept in contents.entries] == [NOW]
    assert [kept.day for kept in contents.answered] == [TODAY]


def test_counts_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MOST_COUNTS", 10)
    write(path, [], [AnsweredCount(TODAY - i, "h", "", "") for i in range(25)], NOW)
    assert [kept.day for kept in read(path).answered] == [TODAY - i for i in reversed(range(10))]


# Who may read it


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_only_its_user_may_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        write(path, [entry()], [], NOW)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    path.chmod(0o644)
    write(path, [entry()], [], NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# Several at once

WRITING = """
import sys
from pathlib import Path
from journal.made import NOW, entry
from unbroken.journal import database
from unbroken.journal.database import write
database.BUSY = 60.0  # the machine may be busy
sys.stdin.readline()
for number in range(25):
    write(Path(sys.argv[1]), [entry(NOW + number, face=sys.argv[2])], [], NOW)
"""


def test_several_processes_write_at_once(path: Path, tmp_path: Path) -> None:
    env = environment(tmp_path)
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], str(Path(__file__).parents[1])])
    faces = [str(number) for number in range(4)]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITING, str(path), face], env=env, stdin=subprocess.PIPE, text=True)
        for face in faces
    ]
    with contextlib.ExitStack() as stack:
        for writer in writers:
            stack.enter_context(writer)
        for writer in writers:
            writer.communicate("go\n", timeout=120)
    assert [writer.returncode for writer in writers] == [0] * 4
    contents = read(path)
    assert contents.problem == ""
    assert sorted(kept.face for kept in contents.entries) == sorted(faces * 25)


def test_what_another_process_holds_locked_is_waited_for_and_then_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, [entry()], [], NOW)
    monkeypatch.setattr(database, "BUSY", 0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write(path, [entry()], [], NOW)
        assert "locked" in read(path).problem
    assert len(read(path).entries) == 1


# What is broken


def test_a_file_that_is_no_database_is_set_aside(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"garbage " * 1000)
    assert "not a database" in read(path).problem
    write(path, [entry()], [], NOW)
    assert read(path) == JournalContents([entry()], [])
    assert path.with_name("journal.sqlite3.corrupt").read_bytes() == b"garbage " * 1000


def test_a_corrupt_file_is_set_aside(path: Path) -> None:
    write(path, [entry()] * 500, [], NOW)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    assert read(path).problem
    write(path, [entry()], [], NOW)
    assert read(path) == JournalContents([entry()], [])


def test_what_belongs_to_a_corrupt_file_is_not_applied_to_the_next(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"garbage " * 1000)
    path.with_name(f"{path.name}-journal").write_bytes(b"garbage " * 1000)
    write(path, [entry()], [], NOW)
    assert not path.with_name(f"{path.name}-journal").exists()
    assert read(path) == JournalContents([entry()], [])


def test_a_file_that_is_made_and_not_yet_written_is_empty(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()
    assert read(path) == JournalContents()
    write(path, [entry()], [], NOW)
    assert read(path) == JournalContents([entry()], [])


@pytest.mark.parametrize(
    "folder", ["a b", "50%20off", "#1", "ü"] + ([] if sys.platform == "win32" else ["why?x=1&mode=ro"])
)
def test_any_folder_will_do(folder: str, tmp_path: Path) -> None:
    path = tmp_path / folder / "journal.sqlite3"
    write(path, [entry()], [], NOW)
    assert read(path) == JournalContents([entry()], [])
    assert [*tmp_path.iterdir()] == [tmp_path / folder]


def test_a_file_that_was_cut_short_is_written_again(path: Path) -> None:
    write(path, [entry()] * 500, [], NOW)
    os.truncate(path, 6000)
    read(path)
    write(path, [entry()], [], NOW)
    assert entry() in read(path).entries


def test_a_file_of_another_version_is_left_as_it_is(path: Path) -> None:
    write(path, [entry()], [], NOW)
    with contextlib.closing(sqlite3.connect(path)) as later:
        later.execute(f"PRAGMA user_version = {database.VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(OtherVersion):
        write(path, [entry()], [], NOW)
    assert path.read_bytes() == before
    assert read(path).problem == "it is of another version of Unbroken"


def test_a_row_without_sense_is_left_out(path: Path) -> None:
    write(path, [entry()] * 3, [AnsweredCount(TODAY, "h", "", "")], NOW)
    with contextlib.closing(sqlite3.connect(path)) as strange, strange:
        strange.execute("UPDATE attempts SET phase = 'nowhere' WHERE id = 1")
        strange.execute("UPDATE attempts SET silent = 'long' WHERE id = 2")
        strange.execute("INSERT INTO answered VALUES ('when', 'h', '', '', 1)")
    assert read(path) == JournalContents([entry()], [AnsweredCount(TODAY, "h", "", "")])


def test_a_folder_in_its_place_is_an_error(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(sqlite3.OperationalError):
        write(path, [entry()], [], NOW)
    assert read(path).problem
