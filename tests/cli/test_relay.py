"""``unbroken relay``: what it is told, where from, what it says of itself, and that it serves and ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import click
import pytest
import tomli_w

import unbroken.cli
from cli.programs import Cli, untimed
from cli.relays import CHATTED, running
from ports import free_port
from relay.redis_server import RedisServer
from relay.serving import poll
from unbroken.cli.relay import command
from unbroken.lab import Continuation, CuttingProxy, Fault, ScriptedAnswer, Upstream
from unbroken.relay.settings import Settings
from wire.servers import refuses

TOKEN = ScriptedAnswer(text="TOKEN-42")
KEYS = {"OPENAI_API_KEY": "sk-openai", "ANTHROPIC_API_KEY": "sk-ant"}


class Told(Exception):
    """What the server was to be started with; raised in its place."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a command line; returns the settings that come of it, and the rest."""
    for name in set(os.environ) - {"PATH", "HOME"}:
        if name.startswith("UNBROKEN_") or name.endswith(("_API_KEY", "_BASE_URL", "_proxy", "_PROXY")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("UNBROKEN_CONFIG", str(tmp_path / "config.toml"))

    def serve(workers: int, settings: Settings, sock: socket.socket, log: Any) -> None:
        sock.close()
        raise Told(workers, settings, log)

    monkeypatch.setattr("unbroken.relay.workers.serve_together", serve)

    def tell(*flags: str, file: dict[str, Any] | None = None, **environ: str) -> tuple[int, Settings, Any]:
        (tmp_path / "config.toml").write_text(tomli_w.dumps(file or {}))
        with monkeypatch.context() as changed:
            for name, value in environ.items():
                changed.setenv(name, value)
            with pytest.raises(Told) as caught:
                unbroken.cli.execute(["relay", "--port", "0", *flags])
        workers, settings, log = caught.value.args
        return workers, settings, log

    return tell


@pytest.fixture
def _never_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(*args: Any) -> None:
        raise AssertionError("it serves")

    monkeypatch.setattr("unbroken.relay.workers.serve_together", serve)


# Where settings come from


@pytest.mark.parametrize(
    ("option", "values", "found"),
    [
        ("heartbeat", (1, 2, 3), (1.0, 2.0, 3.0)),
        ("max_turns", (1, 2, 3), (1, 2, 3)),
        ("max_body", ("1K", "2k", 3), (1024, 2048, 3)),
        ("max_header", (1000, "2K", "3M"), (1000, 2048, 3 * 1024**2)),
        ("receive_timeout", (1, 2, 3), (1.0, 2.0, 3.0)),
        ("grace", (0, 2, 3), (0.0, 2.0, 3.0)),
        ("keep", (1, 2, 3), (1.0, 2.0, 3.0)),
        ("max_kept", ("1K", "2k", 3), (1024, 2048, 3)),
        ("default", ("openai", "groq", "xai"), ("openai", "groq", "xai")),
        ("proxy", ("http://a:1", "http://b:1", "http://c:1"), ("http://a:1", "http://b:1", "http://c:1")),
    ],
)
def test_flags_win_over_the_environment_and_that_over_the_file(
    option: str, values: tuple[Any, ...], found: tuple[Any, ...], told: Any
) -> None:
    file = {"relay": {option: values[0]}}
    variable = f"UNBROKEN_{'' if option == 'proxy' else 'RELAY_'}{option.upper()}"
    flag = [f"--{option.replace('_', '-')}", str(values[2])]
    assert getattr(told(file=file)[1], option) == found[0]
    assert getattr(told(file=file, **{variable: str(values[1])})[1], option) == found[1]
    assert getattr(told(*flag, file=file, **{variable: str(values[1])})[1], option) == found[2]


def test_what_is_said_of_the_relay_is_nearer_than_what_is_said_of_everything(told: Any) -> None:
    file = {"idle": 1, "ping": 7, "relay": {"idle": 2}}
    policy = told(file=file)[1].policy
    assert (policy.idle_timeout, policy.ping_interval) == (2.0, 7.0)
    assert told(file={"proxy": "http://a:1", "relay": {"no_proxy": True}})[1].proxy == ""
    assert told(file={"no_proxy": True, "relay": {"proxy": "http://a:1"}})[1].proxy == "http://a:1"
    assert told("--no-proxy", file={"relay": {"proxy": "http://a:1"}})[1].proxy == ""


def test_nothing_said_means_the_usual(told: Any) -> None:
    workers, settings, log = told()
    usual = Settings(upstreams=settings.upstreams, hosts=frozenset({"127.0.0.1"}), journal="relay")
    assert (workers, settings, log) == (1, usual, {"as_json": False, "quiet": False})


def test_lists_and_switches(told: Any) -> None:
    file = {"allow_host": ["a", "B"], "allow_origin": ["https://x"], "early_heartbeat": True, "workers": 3}
    workers, settings, _ = told(file={"relay": file})
    assert settings.hosts == {"a", "b", "127.0.0.1"}
    assert (settings.origins, settings.early_heartbeat, workers) == ({"https://x"}, True, 3)
    assert told("--allow-host", "c", file={"relay": file})[1].hosts == {"c", "127.0.0.1"}
    assert told(UNBROKEN_RELAY_ALLOW_HOST="d e")[1].hosts == {"d", "e", "127.0.0.1"}
    assert told(UNBROKEN_RELAY_EARLY_HEARTBEAT="0", file={"relay": file})[1].early_heartbeat is False
    assert told(UNBROKEN_RELAY_QUIET="1", UNBROKEN_RELAY_LOG_FORMAT="json")[2] == {"as_json": True, "quiet": True}
    assert told("--log-format", "none")[2] is None


def test_every_option_may_stand_in_the_file(told: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.toml").write_text("[relay]\nnonsense = 1")
    assert unbroken.cli.execute(["relay"]) == 2
    known = set(capsys.readouterr().err.partition("known are ")[2].strip().split(", "))
    assert known == {param.name for param in command.params if isinstance(param, click.Option)} - {"upstream"}


# Where it forwards to


def test_upstreams_come_from_presets_the_file_and_the_command_line(told: Any) -> None:
    file = {
        "upstreams": {
            "work": {"base_url": "https://work/v1", "api_key": "sk-file", "dialect": "openai-responses"},
            "deepseek": {"proxy": "http://p:1"},
            "openai": {"base_url": "https://mine/v1"},
        }
    }
    given = ("--upstream", "openai=https://flag/v1", "--upstream", "new=http://new")
    upstreams = told(*given, file=file)[1].upstreams
    assert list(upstreams)[0:2] == ["deepseek", "openai"]
    assert upstreams["work"].dialect == "openai-responses"
    assert (upstreams["deepseek"].base_url, upstreams["deepseek"].proxy) == (
        "https://api.deepseek.com/v1",
        "http://p:1",
    )
    assert upstreams["openai"].base_url == "https://flag/v1"
    assert upstreams["new"].base_url == "http://new"
    assert all(upstream.key is None for upstream in upstreams.values())


def test_variables_that_lead_programs_here_mean_nothing_here(told: Any) -> None:
    settings = told(OPENAI_BASE_URL="http://127.0.0.1:8765/openai/v1")[1]
    assert settings.upstreams["openai"].base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("flags", "file", "environ", "default"),
    [
        ((), {}, {}, ""),
        ((), {}, KEYS, "openai"),
        ((), {"provider": "Groq"}, KEYS, "groq"),
        ((), {"provider": "Groq", "relay": {"default": "xai"}}, KEYS, "xai"),
        (("--upstream", "work=http://w"), {"provider": "groq"}, KEYS, "work"),
        (("--upstream", "work=http://w", "--upstream", "two=http://t"), {}, KEYS, "openai"),
        (("--default", "together"), {"relay": {"default": "xai"}}, KEYS, "together"),
    ],
)
def test_the_default_upstream(
    flags: tuple[str, ...], file: dict[str, Any], environ: dict[str, str], default: str, told: Any
) -> None:
    assert told(*flags, file=file, **environ)[1].default == default


def test_keys_are_injected_only_where_they_belong(told: Any) -> None:
    file = {"upstreams": {"work": {"base_url": "http://w", "api_key": "sk-w"}, "mine": {"base_url": "http://m"}}}
    flags = ("--inject-key", "--upstream", "anthropic=http://elsewhere")
    upstreams = told(*flags, file=file, **KEYS)[1].upstreams
    keys = {name: upstream.key for name, upstream in upstreams.items() if upstream.key}
    assert keys == {"openai": "sk-openai", "work": "sk-w"}
    assert upstreams["anthropic"].key_env == ""


# Who is let in


def test_a_token_is_made_where_one_is_needed(told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert told()[1].token == ""
    assert "token" not in capsys.readouterr().err
    for flags in (("--inject-key",), ("--host", "0.0.0.0")):
        token = told(*flags)[1].token
        assert len(token) >= 32
        said = capsys.readouterr().err
        assert f"\ntoken: {token} (made for this run; set UNBROKEN_RELAY_TOKEN to choose one)\n" in said
    assert "\nit answers to localhost alone; --allow-host names what else clients may call it\n" in said


def test_a_token_of_ones_own_is_not_shown(told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(UNBROKEN_RELAY_TOKEN=" t-1 ")[1].token == "t-1"
    assert told("--token-env", "MINE", MINE="t-2")[1].token == "t-2"
    assert "t-1" not in capsys.readouterr().err


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_of_everywhere_is_no_name(host: str, told: Any) -> None:
    assert told("--host", host, "--allow-host", "me")[1].hosts == {"me"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--port", "70000"], "'70000' is not a port, which is a number up to 65535"),
        (["--workers", "0"], "'0' is not a number above 0"),
        (["--max-turns", "many"], "'many' is not a number above 0"),
        (["--max-body", "3X"], "'3X' is not a size such as 65536, 64K or 16M"),
        (["--grace", "-1"], "-1 is not between 0 and a year, in seconds"),
        (["--host", "1.2.3.4"], "cannot listen on 1.2.3.4 port 8765: Cannot assign requested address"),
        (["--default", "nope"], "the default upstream 'nope' is not there; known are deepseek, openai, "),
        (["--upstream", "nope"], "--upstream takes NAME=URL, such as work=https://llm.example.com/v1, not 'nope'"),
        (["--upstream", "v1=http://x"], "'v1' cannot name an upstream"),
        (["--upstream", "a=ftp://x"], "'ftp://x' is not an http:// or https:// URL"),
        (["--upstream", "a=http://u:secret@x"], "the base URL of a cannot carry credentials"),
        (["--proxy", "socks4://x:1"], "unknown scheme socks4://; use one of http,"),
        (["--ca-file", "/nope"], "cannot use the CA file '/nope': No such file or directory"),
        (["--token-env", "secret-1"], "--token-env takes the name of an environment variable, not a token"),
        (["--token-env", "NOT_SET"], "--token-env names NOT_SET, which is not set"),
        (["--log-format", "xml"], "'xml' is not one of 'text', 'json', 'none'"),
        (["--hearbeat", "1"], "No such option '--hearbeat'. "),
        (["--idle", "0"], "--idle cannot be 0"),
        (["--keep", "-1"], "-1 is not between 0 and a year, in seconds"),
        (
            ["--keep", "9", "--store", "file:///x"],
            "a store is memory://, redis://HOST:PORT/DB, rediss://HOST:PORT/DB or",
        ),
        (
            ["--keep", "9", "--store", "redis://u:secret@127.0.0.1:1/0"],
            "the store of --store cannot be used: it cannot",
        ),
        (["--keep", "9", "--workers", "2"], "--keep with several --workers needs a --store that they share"),
        (["there"], "Got unexpected extra argument (there)"),
    ],
)
@pytest.mark.usefixtures("_never_serves")
def test_mistakes_are_2_and_told(args: list[str], said: str, cli: Cli) -> None:
    ended = cli("relay", *args)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("unbroken: ")
    assert said in ended.err
    assert "secret" not in ended.err


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("relay = 1", "relay must be a table"),
        ("[relay]\nprot = 1", "unknown key 'relay.prot'; did you mean 'port'?"),
        ("[relay]\nport = '1'", "relay.port must be a number"),
        ("[relay]\nport = 70000", "'70000' is not a port"),
        ("[relay]\nmax_body = true", 'relay.max_body must be a number of bytes, or a size such as "16M"'),
        ("[relay]\nmax_body = 'much'", "'much' is not a size"),
        ("[relay]\nallow_host = 'me'", "relay.allow_host must be a list of strings"),
        ("[relay]\nallow_host = [1]", "relay.allow_host must be a list of strings"),
        ("[relay]\nlog_format = 'xml'", "'xml' is not one of 'text', 'json', 'none'"),
        ("[relay]\napi_key = 'sk'", "unknown key 'relay.api_key'"),
        ("[upstreams]\nwork = 'http://x'", "write [upstreams.work] and base_url below it"),
        ("[upstreams.work]\nurl = 'http://x'", "unknown key 'upstreams.work.url'"),
        ("[upstreams.work]\napi_key = 'x'", "[upstreams.work] needs a base_url"),
        ("[upstreams.WORK]\nbase_url = 'http://x'", "'WORK' cannot name an upstream"),
        ("[upstreams.work]\nbase_url = 'x'", "'x' is not an http:// or https:// URL"),
        ("[upstreams.work]\nbase_url = 'http://x'\ndialect = 'chat'", "there is no dialect 'chat'; known are openai-"),
        ("[upstreams.openai]\napi_key_env = 'secret-1'", "[upstreams.openai]: api_key_env takes the name of an env"),
        (
            "[upstreams.openai]\nproxy = ''\npaths = ['direct']",
            "[upstreams.openai]: proxy and paths exclude each other",
        ),
        ("[upstreams.openai]\npaths = []", "[upstreams.openai]: the proxy is an empty list: name a proxy, or direct"),
        (
            "[upstreams.openai]\npaths = ['socks4://x']",
            "[upstreams.openai]: the proxy has the unknown scheme socks4://",
        ),
        ("[upstreams.openai]\nproxy = 'socks4://x'", "[upstreams.openai]: the proxy has the unknown scheme socks4://"),
        ("[upstreams.openai]\nca_file = '/nope'", "[upstreams.openai]: cannot use the CA file '/nope'"),
    ],
)
@pytest.mark.usefixtures("_never_serves")
def test_a_file_that_is_no_good_is_told(written: str, said: str, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(written)
    ended = cli("relay", UNBROKEN_CONFIG=str(path))
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert "secret" not in ended.err
    assert "Traceback" not in ended.err


def test_one_upstream_whose_terminator_is_proof_enough(env: dict[str, str], tmp_path: Path) -> None:
    body = b'data: {"choices": [{"index": 0, "delta": {"content": "whole"}}]}\n\ndata: [DONE]\n\n'
    fault = Fault("status", "before_headers", status=200, headers={"content-type": "text/event-stream"}, body=body)
    with Upstream(faults=[fault] * 3) as upstream:
        path = tmp_path / "config.toml"
        tables = (f'[upstreams.{name}]\nbase_url = "{upstream.url}"\n' for name in ("strict", "lenient"))
        path.write_text("".join(tables) + "accept_done = true\n")
        with running(env={**env, "UNBROKEN_CONFIG": str(path)}) as relay:
            assert relay.chat("/lenient/v1").text == "whole"
            with pytest.raises(http.client.IncompleteRead) as cut:
                relay.chat("/strict/v1")
    assert b"accept_done = true for an upstream of the relay" in cut.value.partial


def test_one_upstream_that_continues_an_answer(env: dict[str, str], tmp_path: Path) -> None:
    cut = Fault("clean_end", "after_characters", offset=5)
    answer = ScriptedAnswer(text="whole and more")
    with Upstream(faults=[cut, None, cut], answer=answer, continuation=Continuation("prefix")) as upstream:
        path = tmp_path / "config.toml"
        tables = (f'[upstreams.{name}]\nbase_url = "{upstream.url}"\n' for name in ("strict", "able"))
        path.write_text('after_output = "continue"\n' + "".join(tables) + 'continuation = "prefix"\n')
        with running(env={**env, "UNBROKEN_CONFIG": str(path)}) as relay:
            assert relay.chat("/able/v1").text == "whole and more"
            with pytest.raises(http.client.IncompleteRead) as lost:
                relay.chat("/strict/v1")
    assert b"for an upstream of the relay" in lost.value.partial


@pytest.mark.parametrize("command", [("relay",), ("exec", "--", "true")])
def test_no_answer_begins_again_for_a_client(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "config.toml"
    path.write_text('after_output = "restart"\n')
    ended = cli(*command, UNBROKEN_CONFIG=str(path))
    assert ended.code == 2
    assert 'the relay cannot begin an answer again (after_output is "restart")' in ended.err


def test_a_style_that_is_none_is_told(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[upstreams.able]\nbase_url = "http://127.0.0.1:9/v1"\ncontinuation = "guess"\n')
    ended = cli("relay", UNBROKEN_CONFIG=str(path))
    assert ended.code == 2
    assert "[upstreams.able]: continuation cannot be 'guess'" in ended.err


def test_a_port_in_use_is_told(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = cli("relay", "--port", str(port))
    assert ended.code == 2
    assert ended.err == (
        f"unbroken: cannot listen on 127.0.0.1 port {port}: Address already in use "
        f"(while attempting to bind on address ('127.0.0.1', {port})); --port 0 takes a free one\n"
    )


# It serves


def test_a_turn_that_was_cut_is_whole(env: dict[str, str]) -> None:
    with Upstream(faults=[Fault("rst", "after_role")], answer=TOKEN) as upstream:
        with running("--upstream", f"lab={upstream.url}", env=env) as relay:
            answered = relay.chat("/v1", authorization="Bearer sk-mine")
            assert (answered.status, answered.text) == (200, "TOKEN-42")
            assert answered.headers["x-unbroken-replays"] == "1"
            assert relay.chat("/lab/v1").text == "TOKEN-42"
            said = relay.program.err.wait_for("first output")
        assert [request.header("authorization") for request in upstream.requests[:2]] == ["Bearer sk-mine"] * 2
    assert said.splitlines()[:3] == [
        f"listening on {relay.origin}",
        f"status page: {relay.origin}/_unbroken/",
        f"/v1/... goes to lab, {upstream.url}",
    ]
    assert "↻ cut after 0.0 s, before any output (connection reset) · replaying, attempt 2 of 4" in untimed(said)
    assert "POST /v1/chat/completions · 200 answered" in said
    assert "sk-mine" not in said


def test_a_preset_is_led_elsewhere_by_the_file(env: dict[str, str], tmp_path: Path) -> None:
    with Upstream(answer=TOKEN) as upstream, CuttingProxy(idle=60) as proxy:
        path = tmp_path / "config.toml"
        path.write_text(tomli_w.dumps({"upstreams": {"deepseek": {"base_url": upstream.url, "proxy": proxy.url}}}))
        with running("--port", "0", env=env | {"UNBROKEN_CONFIG": str(path)}) as relay:
            assert relay.chat("/deepseek/v1").text == "TOKEN-42"
            refused = relay.chat("/v1")
            assert refused.status == 404
            assert "--default" in refused.json["error"]["message"]
        assert len(proxy.tunnels) == 1


def test_an_upstream_has_paths(env: dict[str, str], tmp_path: Path) -> None:
    missing = f"http://me:s3cret@127.0.0.1:{free_port()}"
    with Upstream(answer=TOKEN) as upstream:
        tables = {
            "both": {"base_url": upstream.url, "paths": [missing, "direct"]},
            "one": {"base_url": upstream.url, "paths": [missing]},
        }
        path = tmp_path / "config.toml"
        path.write_text(tomli_w.dumps({"upstreams": tables}))
        with running("--port", "0", "--give-up-after", "1", env=env | {"UNBROKEN_CONFIG": str(path)}) as relay:
            assert relay.chat("/both/v1").text == "TOKEN-42"
            refused = relay.chat("/one/v1")
            said = relay.program.err.wait_for("502")
    shown = missing.replace("me:s3cret@", "")
    assert refused.status == 502
    named = f"cannot connect to the proxy at {shown} ([upstreams.one]): connection refused"
    assert named in refused.json["error"]["message"]
    assert "going by direct from now on" in said
    assert "s3cret" not in said


def test_keys_are_put_in_for_whoever_shows_the_token(env: dict[str, str], tmp_path: Path) -> None:
    with Upstream(answer=TOKEN) as upstream:
        path = tmp_path / "config.toml"
        table = {"base_url": upstream.url, "api_key_env": "MY_KEY"}
        path.write_text(tomli_w.dumps({"upstreams": {"lab": table}, "relay": {"inject_key": True, "default": "lab"}}))
        variables = {"UNBROKEN_CONFIG": str(path), "MY_KEY": "sk-real", "UNBROKEN_RELAY_TOKEN": "t-42"}
        with running(env=env | variables) as relay:
            assert relay.chat(authorization="Bearer wrong").status == 401
            assert relay.chat(authorization="Bearer t-42").text == "TOKEN-42"
            assert relay.chat(authorization="Bearer x", x_unbroken_token="t-42").text == "TOKEN-42"
            relay.program.send(signal.SIGTERM)
            ended = relay.program.end()
        assert [request.header("authorization") for request in upstream.requests] == ["Bearer sk-real"] * 2
        assert all("t-42" not in str(request.headers) for request in upstream.requests)
    assert "t-42" not in ended.err
    assert "sk-real" not in ended.err


def test_what_it_says_of_itself(env: dict[str, str]) -> None:
    with Upstream(answer=TOKEN) as upstream, running("--upstream", f"lab={upstream.url}", env=env) as relay:
        assert relay.chat().status == 200
        assert relay.ask("/_unbroken/health").json == {"status": "ok"}
        metrics = relay.ask("/_unbroken/metrics").body.decode()
        assert 'unbroken_turns_total{dialect="openai-chat",outcome="answered",upstream="lab"} 1.0' in metrics


def test_behind_the_first_line_a_json_log_is_json(env: dict[str, str]) -> None:
    with Upstream(faults=[Fault("rst", "after_role")], answer=TOKEN) as upstream:
        given = ("--upstream", f"lab={upstream.url}", "--log-format", "json", "--inject-key")
        with running(*given, env=env) as relay:
            said = relay.program.err.wait_for("}\n").splitlines()
            introduction = json.loads(said[1])
            assert relay.chat(authorization=f"Bearer {introduction['token']}").text == "TOKEN-42"
            relay.program.send(signal.SIGTERM)
            ended = relay.program.end()
    assert ended.code == 0
    first, *rest = ended.err.splitlines()
    assert first == f"listening on {relay.origin}"
    introduction, turn = [json.loads(line) for line in rest]
    assert introduction.keys() == {"status_page", "default", "token"}
    assert (turn["outcome"], turn["replays"], turn["lost"]) == ("answered", 1, ["reset@prelude"])


@pytest.mark.parametrize(("flags", "count"), [(("--quiet",), 0), (("--log-format", "none"), 0), ((), 1)])
def test_how_much_is_shown(flags: tuple[str, ...], count: int, env: dict[str, str]) -> None:
    with Upstream(answer=TOKEN) as upstream, running("--upstream", f"lab={upstream.url}", *flags, env=env) as relay:
        assert relay.chat().text == "TOKEN-42"
        relay.program.send(signal.SIGTERM)
        assert relay.program.end().err.count("answered") == count


# It ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_turns_finish(number: signal.Signals, env: dict[str, str]) -> None:
    slow = Fault("pause", "after_token", seconds=1.0)
    with Upstream(faults=[slow], answer=TOKEN) as upstream, running(env=env | default(upstream)) as relay:
        connection, response = relay.begin("/lab/v1/chat/completions", CHATTED)
        with connection:
            relay.program.send(number)
            assert b"[DONE]" in response.read()
        ended = relay.program.end()
    assert ended.code == 0
    assert "200 answered" in ended.err


def test_it_waits_no_longer_than_it_was_told(env: dict[str, str]) -> None:
    stalled = Fault("stall", "after_token")
    with Upstream(faults=[stalled], answer=TOKEN) as upstream:
        with running("--grace", "0.2", env=env | default(upstream)) as relay:
            connection, response = relay.begin("/lab/v1/chat/completions", CHATTED)
            with connection:
                relay.program.send(signal.SIGTERM)
                assert b"relay_stopped" in response.read1(99999) + response.read1(99999)
            ended = relay.program.end()
        assert upstream.wait_for(lambda: upstream.requests[0].gone, timeout=10)
    assert ended.code == 0
    assert "Traceback" not in ended.err


def test_a_second_signal_ends_it_at_once(env: dict[str, str]) -> None:
    with Upstream(faults=[Fault("stall", "after_token")]) as upstream, running(env=env | default(upstream)) as relay:
        connection, _ = relay.begin("/lab/v1/chat/completions", CHATTED)
        with connection:
            relay.program.send(signal.SIGTERM)
            poll(lambda: refuses(relay.port))
            relay.program.send(signal.SIGINT)
            ended = relay.program.end()
    assert ended.code in (130, 143)
    assert "Traceback" not in ended.err


def test_workers_serve_and_end_together(env: dict[str, str]) -> None:
    with Upstream(answer=TOKEN) as upstream, running("--workers", "2", env=env | default(upstream)) as relay:
        assert [relay.chat("/lab/v1").text for _ in range(4)] == ["TOKEN-42"] * 4
        counted = b'unbroken_turns_total{dialect="openai-chat",outcome="answered",upstream="lab"} 4.0\n'
        poll(lambda: counted in relay.ask("/_unbroken/metrics").body)  # a turn is counted once its client has all of it
        relay.program.send(signal.SIGTERM)
        ended = relay.program.end()
    assert ended.code == 0
    assert ended.err.count("200 answered") == 4


def test_workers_share_a_store(env: dict[str, str]) -> None:
    with RedisServer() as redis, Upstream(answer=TOKEN) as upstream:
        keeping = ("--workers", "2", "--keep", "20", "--store", redis.url)
        with running(*keeping, env=env | default(upstream)) as relay:
            key = {"authorization": "Bearer sk-test-0123456789-0123456789", "idempotency_key": "k1"}
            answers = [relay.chat("/lab/v1", **key) for _ in range(8)]
            assert [answer.text for answer in answers] == ["TOKEN-42"] * 8
            assert len({answer.headers["x-unbroken-turn"] for answer in answers}) == 1
        assert len(upstream.requests) == 1


def default(upstream: Upstream) -> dict[str, str]:
    """The variable that names the upstream of these tests."""
    return {"UNBROKEN_RELAY_UPSTREAM": f"lab={upstream.url}"}
