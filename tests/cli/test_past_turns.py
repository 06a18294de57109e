"""What ``unbroken doctor`` tells of past turns."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.programs import Cli, Ended
from journal.made import HOST, PROXY, entry
from unbroken.core.failures import Failure, Phase
from unbroken.journal.database import write
from unbroken.journal.entry import DAY, AnsweredCount, JournalEntry
from unbroken.journal.place import NAME
from unbroken.lab import CuttingProxy, Fault, Upstream

Doctor = Callable[..., Ended]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "unbroken" / NAME


@pytest.fixture
def doctor(cli: Cli, upstream: Upstream, tmp_path: Path) -> Doctor:
    """Examines the path to the upstream, whose user's journal is the fixture ``path``."""

    def call(*args: str, **variables: str) -> Ended:
        where = {"XDG_STATE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
        return cli("doctor", "--max", "0", "--base-url", upstream.url, *args, **where, **variables)

    return call


def lost(upstream: Upstream, number: int = 4, **more: Any) -> list[JournalEntry]:
    """Attempts that this very path has cut after 60 s."""
    host = upstream.url.removeprefix("http://").removesuffix("/v1")
    return [entry(time.time() - i, **{"host": host, "proxy": "", **more}) for i in range(number)]


def test_nothing_was_lost(doctor: Doctor) -> None:
    ended = doctor()
    assert ended.code == 0
    assert "  past turns   no attempt was lost\n" in ended.out
    assert ended.out.endswith("✓ nothing is wrong\n")


def test_this_very_path_was_cut(doctor: Doctor, upstream: Upstream, path: Path) -> None:
    write(path, lost(upstream), [], time.time())
    ended = doctor()
    assert ended.code == 4
    assert "  past turns   4 attempts lost\n" in ended.out
    assert "\n✗ 4 attempts over HTTP/1.1 to 127.0.0.1:" in ended.out
    assert "nothing is wrong" not in ended.out
    told = json.loads(doctor("--json").out)
    assert told["idle_limit"] == 60
    assert [finding["code"] for finding in told["findings"]] == ["past_idle_cuts"]
    assert told["findings"][0]["next"]


def test_another_path_is_a_note(doctor: Doctor, upstream: Upstream, path: Path) -> None:
    write(path, lost(upstream, host=HOST, proxy=PROXY), [], time.time())
    ended = doctor()
    assert ended.code == 0
    assert f"\n· 4 attempts over HTTP/1.1 through {PROXY} to {HOST} were cut" in ended.out
    assert ended.out.endswith("✓ nothing is wrong\n")
    assert json.loads(doctor("--json").out)["idle_limit"] is None


def test_what_changed_is_told(doctor: Doctor, upstream: Upstream, path: Path) -> None:
    now = time.time()
    cut = lost(upstream, proxy=PROXY)
    before = AnsweredCount(int(now) // DAY - 4, cut[0].attempt.route.host, "", "HTTP/1.1", 31)
    write(path, cut, [before], now)
    assert "; before, over no proxy, none of 31 was: " in doctor().out


def test_other_losses_are_a_note(doctor: Doctor, upstream: Upstream, path: Path) -> None:
    cut = [JournalEntry(time.time(), "run", one.attempt) for one in lost(upstream, 3)]
    after_output = [entry(time.time(), Failure.RESET, Phase.OUTPUT, host=cut[0].attempt.route.host, proxy="")] * 3
    write(path, after_output, [], time.time())
    ended = doctor()
    assert ended.code == 0
    assert ": connection reset, after output (3)\n  next: --hold answer replays" in ended.out


@pytest.mark.parametrize("how", ["option", "variable", "file"])
def test_a_journal_that_is_turned_off_is_not_read(
    how: str, doctor: Doctor, upstream: Upstream, path: Path, tmp_path: Path
) -> None:
    write(path, lost(upstream), [], time.time())
    (tmp_path / "config.toml").write_text("journal = false\n" if how == "file" else "")
    variables = {"UNBROKEN_CONFIG": str(tmp_path / "config.toml")}
    if how == "variable":
        variables["UNBROKEN_JOURNAL"] = "false"
    ended = doctor(*(["--no-journal"] if how == "option" else []), **variables)
    assert ended.code == 0
    assert "  past turns   the journal is turned off\n" in ended.out


@pytest.mark.parametrize("broken", ["corrupt", "directory"])
def test_a_journal_that_cannot_be_read_has_a_word(broken: str, doctor: Doctor, path: Path) -> None:
    if broken == "corrupt":
        path.parent.mkdir()
        path.write_bytes(b"garbage" * 1000)
    else:
        path.mkdir(parents=True)
    ended = doctor()
    assert ended.code == 0
    assert "  past turns   not known: the journal cannot be read\n" in ended.out
    assert "\n· the journal of past turns cannot be read: " in ended.out
    assert f"\n  next: remove {path}" in ended.out


def test_the_doctor_writes_nothing(doctor: Doctor, upstream: Upstream, path: Path) -> None:
    doctor()
    assert not path.parent.exists()
    write(path, lost(upstream), [], time.time())
    before = path.read_bytes()
    doctor()
    assert path.read_bytes() == before


@pytest.mark.slow
def test_turns_that_were_cut_are_found_by_the_doctor(cli: Cli, tmp_path: Path) -> None:
    """From the cuts to the doctor's sentence, as its user meets them: well without a proxy, cut with one."""
    where = {"XDG_STATE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    cut = Fault("rst", "after_role", seconds=1.2)
    with Upstream(faults=[None, None, cut, cut, cut]) as upstream, CuttingProxy() as proxy:
        for _ in range(2):
            assert cli("run", "--base-url", upstream.url, "hi", **where).code == 0
        ended = cli("run", "--base-url", upstream.url, "--proxy", proxy.url, "--replays", "3", "hi", **where)
        assert ended.code == 0, ended.err
        args = ("--max", "0", "--base-url", upstream.url, "--proxy", proxy.url, "--json")
        told = json.loads(cli("doctor", *args, **where).out)
    (finding,) = told["findings"]
    assert finding["code"] == "past_idle_cuts"
    assert f"3 attempts over HTTP/1.1 through {proxy.url} to 127.0.0.1:" in finding["text"]
    assert "; over no proxy, none of 2 was: " in finding["text"]
    assert "without the proxy (--no-proxy)" in finding["next"]
    assert 1 <= told["idle_limit"] < 30
