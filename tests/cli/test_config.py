"""The configuration file, and the order of the sources, option by option."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest
import tomli_w

import unbroken.cli
from cli.programs import Cli
from unbroken.cli.config import config_path, read_config, write_config
from unbroken.cli.run import command
from unbroken.core.policy import HOLDS
from unbroken.errors import UsageError
from unbroken.lab import Upstream


class Asked(Exception):
    """What the client was made with; raised in its place."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.settings = settings


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a command line; returns what the client was made with."""
    for name in list(os.environ):
        if name.startswith("UNBROKEN_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("UNBROKEN_CONFIG", str(tmp_path / "config.toml"))

    def client(provider: str | None, **settings: Any) -> None:
        raise Asked({"provider": provider, **settings})

    monkeypatch.setattr("unbroken.client.synchronous.Client", client)

    def ask(*flags: str, file: dict[str, Any], env: dict[str, str] | None = None) -> dict[str, Any]:
        (tmp_path / "config.toml").write_text(tomli_w.dumps(file))
        with monkeypatch.context() as changed:
            for name, value in (env or {}).items():
                changed.setenv(name, value)
            with pytest.raises(Asked) as caught:
                unbroken.cli.execute(["run", "hi", *flags])
        policy = caught.value.settings["policy"]
        return caught.value.settings | {name: getattr(policy, name) for name in policy.__dataclass_fields__}

    return ask


@pytest.mark.parametrize(
    ("option", "setting", "values"),
    [
        ("provider", "provider", ("openai", "groq", "xai")),
        ("model", "model", ("a", "b", "c")),
        ("base_url", "base_url", ("http://a/v1", "http://b/v1", "http://c/v1")),
        ("hold", "hold", ("reasoning", "answer", "prelude")),
        ("replays", "replays", (1, 2, 4)),
        ("idle", "idle_timeout", (1.5, 2.5, 3.5)),
        ("first_output", "first_output_timeout", (1.5, 2.5, 3.5)),
        ("give_up_after", "give_up_after", (1.5, 2.5, 3.5)),
        ("ping", "ping_interval", (1.5, 2.5, 0.0)),
        ("connect", "connect_timeout", (1.5, 2.5, 3.5)),
        ("proxy", "proxy", ("http://a:1", "http://b:1", "http://c:1")),
        ("ca_file", "verify", ("a.pem", "b.pem", "c.pem")),
    ],
)
def test_flags_win_over_the_environment_and_that_over_the_file(
    option: str, setting: str, values: tuple[Any, ...], asked: Any
) -> None:
    file = {option: values[0]}
    env = {f"UNBROKEN_{option.upper()}": str(values[1])}
    flag = [f"--{option.replace('_', '-')}", str(values[2])]
    assert asked(file=file)[setting] == values[0]
    assert asked(file=file, env=env)[setting] == values[1]
    assert asked(*flag, file=file, env=env)[setting] == values[2]


@pytest.mark.parametrize(
    ("flags", "file", "hold"),
    [
        ([], {}, "prelude"),
        (["--format", "jsonl"], {}, "prelude"),
        (["--format", "json"], {}, "answer"),
        ([], {"format": "json"}, "answer"),
        (["--format", "json", "--hold", "prelude"], {}, "prelude"),
        (["--format", "json"], {"hold": "reasoning"}, "reasoning"),
    ],
)
def test_json_holds_the_answer_unless_it_is_told_otherwise(
    flags: list[str], file: dict[str, Any], hold: str, asked: Any
) -> None:
    assert asked(*flags, file=file)["hold"] == hold


def test_the_choices_of_hold_are_those_of_the_policy() -> None:
    assert unbroken.cli.config.HOLDS == HOLDS


def shown(*args: str) -> dict[str, Any]:
    return command.make_context("run", ["hi", *args]).params


@pytest.mark.parametrize("option", ["show_reasoning", "quiet", "verbose", "no_proxy"])
def test_switches_have_the_same_order(option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNBROKEN_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text(f"{option} = true")
    assert shown()[option] is True
    monkeypatch.setenv(f"UNBROKEN_{option.upper()}", "0")
    assert shown()[option] is False
    assert shown(f"--{option.replace('_', '-')}")[option] is True


def test_format_and_system_have_the_same_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNBROKEN_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text('format = "json"\nsystem = "a"')
    assert (shown()["format"], shown()["system"]) == ("json", "a")
    monkeypatch.setenv("UNBROKEN_FORMAT", "jsonl")
    monkeypatch.setenv("UNBROKEN_SYSTEM", "b")
    assert (shown()["format"], shown()["system"]) == ("jsonl", "b")
    params = shown("--format", "text", "--system", "c")
    assert (params["format"], params["system"]) == ("text", "c")


def test_the_nearer_of_proxy_and_no_proxy_wins(asked: Any) -> None:
    proxy = {"proxy": "http://a:1"}
    assert asked(file={})["proxy"] is None
    assert asked("--no-proxy", file=proxy)["proxy"] == ""
    assert asked(file=proxy, env={"UNBROKEN_NO_PROXY": "1"})["proxy"] == ""
    assert asked("--proxy", "http://b:1", file={"no_proxy": True})["proxy"] == "http://b:1"


def test_several_paths_from_every_source(asked: Any) -> None:
    paths = ["http://a:1", "direct"]
    assert asked(file={"proxy": paths})["proxy"] == tuple(paths)
    assert asked(file={"proxy": paths}, env={"UNBROKEN_PROXY": "direct http://b:1"})["proxy"] == (
        "direct",
        "http://b:1",
    )
    assert asked("--proxy", "http://c:1", "--proxy", "direct", file={"proxy": paths})["proxy"] == (
        "http://c:1",
        "direct",
    )
    assert asked("--no-proxy", file={"proxy": paths})["proxy"] == ""


def test_proxy_and_no_proxy_of_one_source_exclude_each_other(cli: Cli) -> None:
    ended = cli("run", "--provider", "ollama", "--no-proxy", "--proxy", "http://a:1", "hi")
    assert (ended.code, ended.err) == (2, "unbroken: --proxy and --no-proxy exclude each other\n")


def test_every_option_may_stand_in_the_file(tmp_path: Path) -> None:
    options = {param.name for param in command.params if isinstance(param, click.Option)}
    path = tmp_path / "config.toml"
    path.write_text("nonsense = 1")
    with pytest.raises(UsageError) as caught:
        read_config(path)
    known = set(str(caught.value).partition("known are ")[2].split(", "))
    assert known == options | {"api_key", "relay", "upstreams"}


# A file that is no good


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"provider = ", "is not valid TOML"),
        (b"provider = '\xff'", "is not valid TOML"),
        (b"modle = 'x'", "unknown key 'modle'; did you mean 'model'?"),
        (b"model = 1", "model must be a string"),
        (b"ping = 'x'", "ping must be a number"),
        (b"ping = true", "ping must be a number"),
        (b"replays = 1.5", "replays must be a number"),
        (b"show_reasoning = 1", "show_reasoning must be true or false"),
        (b"format = 'xml'", "format must be one of text, json, jsonl"),
        (b"hold = 'all'", "hold must be one of prelude, reasoning, answer"),
        (b"relay.hold = 'all'", "hold must be one of prelude, reasoning, answer"),
        (b"upstreams.lab.hold = 'all'", "hold must be one of prelude, reasoning, answer"),
        (b"hold = true", "hold must be a string"),
        (b"api_key = 'sk-1'", "api_key needs provider or base_url beside it"),
    ],
)
def test_a_file_that_is_no_good_is_named(written: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(written)
    with pytest.raises(UsageError) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "sk-1" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.touch(mode=0)
    with pytest.raises(UsageError, match=r"cannot read .*: Permission denied"):
        read_config(path)


def test_a_folder_in_its_place_is_told(cli: Cli, tmp_path: Path) -> None:
    ended = cli("run", "--provider", "ollama", "hi", UNBROKEN_CONFIG=str(tmp_path))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"unbroken: cannot read {tmp_path}: Is a directory\n"


def test_a_file_that_is_named_but_not_there_is_told(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "nowhere.toml"
    ended = cli("run", "--provider", "ollama", "hi", UNBROKEN_CONFIG=str(path))
    assert ended.err == f"unbroken: UNBROKEN_CONFIG names {path}, which is not there; unbroken init writes it\n"
    assert ended.code == 2


def test_help_does_not_need_the_file(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", "--help", UNBROKEN_CONFIG=str(tmp_path)).code == 0


# Where it is, and what is written


def test_it_lies_where_the_platform_has_such_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("UNBROKEN_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_path() == tmp_path / "unbroken" / "config.toml"


@pytest.mark.parametrize("text", ['a "quoted" \\ value', "line\nfeed", "tab\tbed", "Grüße 😀", "'", '"""', "\x7f\x01"])
def test_values_come_back_as_they_were_written(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    written = {"provider": "openai", "system": text, "ping": 0, "idle": 1.5, "quiet": True}
    write_config(path, written)
    assert read_config(path) == written


def test_a_link_into_somebodys_dotfiles_stays_one(tmp_path: Path) -> None:
    link, file = tmp_path / "config.toml", tmp_path / "dotfiles.toml"
    file.touch(mode=0o644)
    link.symlink_to(file)
    write_config(link, {"model": "m"})
    assert link.is_symlink()
    assert read_config(file) == {"model": "m"}
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_home_in_the_path_of_the_ca_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    path = tmp_path / "config.toml"
    path.write_text('ca_file = "~/ca.pem"')
    assert read_config(path) == {"ca_file": "/home/me/ca.pem"}


# With a server


def test_the_files_key_goes_to_its_provider_and_to_no_other_url(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    with Upstream() as mine, Upstream() as other:
        write_config(path, {"provider": "deepseek", "base_url": mine.url, "model": "m", "api_key": "sk-file"})
        assert cli("run", "hi", UNBROKEN_CONFIG=str(path)).code == 0
        assert cli("run", "--base-url", other.url, "hi", UNBROKEN_CONFIG=str(path)).code == 0
        assert cli("run", "hi", UNBROKEN_CONFIG=str(path), UNBROKEN_BASE_URL=other.url).code == 0
        assert [request.header("authorization") for request in mine.requests] == ["Bearer sk-file"]
        assert [request.header("authorization") for request in other.requests] == [None, None]


def test_a_url_gets_the_key_of_the_variable_that_is_named(cli: Cli) -> None:
    keys = {"MY_KEY": "sk-mine", "OPENAI_API_KEY": "sk-openai"}
    with Upstream() as upstream:
        assert cli("run", "--base-url", upstream.url, "hi", **keys).code == 0
        assert cli("run", "--base-url", upstream.url, "--api-key-env", "MY_KEY", "hi", **keys).code == 0
        assert [request.header("authorization") for request in upstream.requests] == [None, "Bearer sk-mine"]
