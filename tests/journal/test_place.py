"""Where the journal is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unbroken.journal.place import NAME, journal_path

LINUX = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG's folders")


@LINUX
def test_xdg_state_home_is_honoured() -> None:
    assert journal_path({"XDG_STATE_HOME": "/somewhere"}) == Path("/somewhere/unbroken", NAME)


@LINUX
@pytest.mark.parametrize("ignored", ["", "relative/path"])
def test_without_it_the_folder_is_below_home(ignored: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert journal_path({"XDG_STATE_HOME": ignored}) == tmp_path / ".local/state/unbroken" / NAME


@pytest.mark.parametrize(
    ("platform", "environ", "folder"),
    [
        ("darwin", {}, "Library/Application Support/unbroken"),
        ("win32", {}, "AppData/Local/unbroken"),
        ("win32", {"LOCALAPPDATA": "local"}, None),
    ],
)
def test_other_platforms_have_folders_of_their_own(
    platform: str, environ: dict[str, str], folder: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    expected = tmp_path / folder if folder else Path("local", "unbroken")
    assert journal_path(environ) == expected / NAME


def test_a_user_without_a_home_has_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert journal_path({}) is None
