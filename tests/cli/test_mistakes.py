"""Mistakes of users, by kind: each is exit code 2 and one message with its cause, never a traceback or a secret."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cli.programs import UNBROKEN, Cli, Ended, run, shell
from cli.terminals import Terminal
from ports import free_port
from unbroken.cli.prompt import MAX_STDIN
from unbroken.lab import Upstream

SECRET = "s3cret"
HERE = ("--base-url", "http://127.0.0.1:1/v1", "--give-up-after", "0", "hi")
BYTE = "\udc80"
"""A byte that the locale cannot decode, as Python has it in arguments and variables."""


def refuses(ended: Ended, said: str) -> None:
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("unbroken: ")
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert SECRET not in ended.err


# URLs


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://h/v1#part", "a base URL cannot have a fragment: leave out the # and what follows it"),
        (f"http://h/v1?key={SECRET}#", "a base URL cannot have a fragment"),
        (f"http://me:{SECRET}@h/v1", "a base URL cannot carry credentials: give the key, or a header"),
        (f"http://me:{SECRET}@h:x/v1", "its host or port cannot be read"),
        (f"me:{SECRET}@h/v1", "is not an http:// or https:// URL"),
        ("http:/h/v1", "names no host"),
        ("http:///v1", "names no host"),
        ("http://:80/v1", "names no host"),
        ("http://h:99999/v1", "its host or port cannot be read"),
        ("http://h:0/v1", "names no host to connect to"),
        ("http://[::1/v1", "its host or port cannot be read"),
        ("http://[::1]x/v1", "a host with characters that no host name has"),
        ("http://a|b/v1", "a host with characters that no host name has"),
        ("http://h\\v1", "a host with characters that no host name has"),
        ("file:///etc/passwd", "is not an http:// or https:// URL"),
        ("//h/v1", "is not an http:// or https:// URL"),
        ("http://h/a b", "cannot contain spaces"),
        ("http://ö.de/v1", "must be ASCII"),
        (f"http://h/{BYTE}", "must be ASCII"),
        (" ", "spaces"),
    ],
)
def test_a_base_url(url: str, said: str, cli: Cli, tmp_path: Path) -> None:
    refuses(cli("run", "--base-url", url, "hi"), said)
    refuses(cli("run", "hi", UNBROKEN_BASE_URL=url), said)
    named = cli("run", "--provider", "openai", "hi", OPENAI_BASE_URL=url, OPENAI_API_KEY=SECRET)
    refuses(named, "unbroken: OPENAI_BASE_URL: ")
    refuses(named, said)
    refuses(cli("init", "--base-url", url, UNBROKEN_CONFIG=str(tmp_path / "new.toml")), said if BYTE not in url else "")


@pytest.mark.parametrize("query", ["?api-version=1", f"?key={SECRET}&a=", "?", "/?a=1"])
def test_a_base_url_with_a_query_is_asked_with_it(query: str, cli: Cli) -> None:
    with Upstream() as upstream:
        ended = cli("run", "--base-url", upstream.url + query, "-q", "hi")
        wanted = "?" + query.strip("/?") if query.strip("/?") else ""
        assert [request.target for request in upstream.requests] == [f"/v1/chat/completions{wanted}"]
    assert ended == Ended(0, "Hello from the lab.\n", "")


def test_the_query_is_not_shown(cli: Cli) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    ended = cli("run", "--base-url", f"{url}?key={SECRET}", "--give-up-after", "0", "-v", "hi")
    assert ended.code == 5
    assert f"  {url}: is the server running" in ended.err
    assert SECRET not in ended.err


def test_googles_dialect_keeps_both_queries(cli: Cli) -> None:
    with Upstream() as upstream:
        given = ("--provider", "google", "--base-url", f"{upstream.origin}?a=1", "--model", "a?b")
        assert cli("run", *given, "-q", "hi", GEMINI_API_KEY="k").code == 0
        assert [request.target for request in upstream.requests] == [
            "/v1beta/models/a%3Fb:streamGenerateContent?a=1&alt=sse"
        ]


# Proxies

PROXIES = [
    (f"http://me:{BYTE}{SECRET}@h:1", "has a user or password that is not UTF-8; percent-encode it as UTF-8"),
    (f"socks5h://me:{BYTE}{SECRET}@h:1", "has a user or password that is not UTF-8"),
    (f"http://{BYTE}:{SECRET}@h:1", "has a user or password that is not UTF-8"),
    (f"http://me:%FF{SECRET}@h:1", "has a user or password that is not UTF-8"),
    (f"https://me:%ED%A0%80{SECRET}@h:1", "has a user or password that is not UTF-8"),
    (f"socks5://me:{SECRET * 50}@h:1", "over 255 bytes, which SOCKS cannot carry"),
    (f"socks5h://{'ö' * 128}:{SECRET}@h:1", "over 255 bytes, which SOCKS cannot carry"),
    (f"http://a%3Ab:{SECRET}@h:1", "has a user with a colon, which HTTP cannot carry"),
    (f"http://me:{SECRET}/x@h:1", "has a user or password with / ? or #: write them %2F, %3F and %23"),
    (f"http://me:1?{SECRET}@h:1", "has a user or password with / ? or #"),
    (f"http://me:1#{SECRET}@h:1", "has a user or password with / ? or #"),
    (f"http://me:{SECRET}@h:port", "has an invalid port"),
    (f"http://me:{SECRET}@h:99999", "has an invalid port"),
    ("http://h:0", "has an invalid port"),
    (f"http://me:{SECRET}@:1", "names no host; write http://host:port"),
    (f"http://me:{SECRET}@", "names no host"),
    ("://h", "unknown scheme"),
    (f"ftp://me:{SECRET}@h", "unknown scheme ftp://; use one of http, https, socks5, socks5h"),
    (f"socks4://me:{SECRET}@h", "unknown scheme socks4://"),
    ("socks5:/h", "is no URL; write http://host:port"),
    ("http://[::1", "is no URL"),
    ("http://[::1]x:1", "a host with characters that no host name has"),
    ("not a proxy", "a host with characters that no host name has"),
    ("http://ö.de:1", "a host that is not ASCII; use its xn-- form"),
    (f"http://h{BYTE}:1", "a host that is not ASCII"),
]


@pytest.mark.parametrize(("proxy", "said"), PROXIES, ids=map(str, range(len(PROXIES))))  # a path has the id in it
def test_a_proxy(proxy: str, said: str, cli: Cli, tmp_path: Path) -> None:
    refuses(cli("run", *HERE, "--proxy", proxy), "unbroken: --proxy ")
    refuses(cli("run", *HERE, "--proxy", proxy), said)
    for variable in ("UNBROKEN_PROXY", "http_proxy", "ALL_PROXY"):
        if variable == "UNBROKEN_PROXY" and " " in proxy:
            continue  # in which a space separates paths
        ended = cli("run", *HERE, **{variable: proxy})
        refuses(ended, said)
        assert variable in ended.err
    refuses(cli("run", "--base-url", "https://127.0.0.1:1", "hi", HTTPS_PROXY=proxy), said)
    refuses(cli("init", "--proxy", proxy, UNBROKEN_CONFIG=str(tmp_path / "new.toml")), "unbroken: --proxy ")
    refuses(cli("relay", "--proxy", proxy), said)
    refuses(cli("exec", "--proxy", proxy, "true"), said)
    if proxy.isprintable():  # TOML is UTF-8
        config = tmp_path / "config.toml"
        config.write_text(f'proxy = "{proxy}"', encoding="utf-8")
        refuses(cli("run", *HERE, UNBROKEN_CONFIG=str(config)), f"{config}: proxy ")


@pytest.mark.parametrize("password", ["pässword", "€", "%E2%82%AC", "p%40%3A%2F"])
def test_a_proxys_password_that_utf8_can_carry_is_sent(password: str, cli: Cli) -> None:
    from urllib.parse import unquote

    from unbroken.lab import CuttingProxy

    with Upstream() as upstream, CuttingProxy(auth=("mé", unquote(password))) as proxy:
        for url in (proxy.url, proxy.socks_url):
            given = url.replace("://", f"://mé:{password}@")
            assert cli("run", "--base-url", upstream.url, "--proxy", given, "-q", "hi").code == 0, url


# The configuration file


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"a = " + b"[" * 20_000, "is not valid TOML: maximum recursion depth exceeded"),
        (b"replays = " + b"9" * 5000, "is not valid TOML: Exceeds the limit"),
        (b"idle = 1" + b"0" * 400, "000 is not between 0 and a year, in seconds"),
        (b"# " + b"x" * 1024 * 1024, "is longer than 1 MiB: is it a configuration file?"),
        (b'proxy = "a\\u0000b"', "proxy has a NUL character"),
        (b'ca_file = "a\\u0000b"', "ca_file has a NUL character"),
        (b'[relay]\nca_file = "a\\u0000b"', "relay.ca_file has a NUL character"),
        (b'[upstreams.x]\nbase_url = "http://h\\u0000"', "upstreams.x.base_url has a NUL character"),
        (b'base_url = "http://h/v1#x"', "cannot have a fragment"),
        (b"relay = 1", "relay must be a table"),
        (b"upstreams = []", "upstreams must be a table"),
        (b"[upstreams]\nx = 1", "write [upstreams.x] and base_url below it"),
        (b"[[relay]]\nport = 1", "relay must be a table"),
        (b"[nope]", "unknown key 'nope'"),
        (b"replays = -1", "--replays cannot be -1"),
        (b"idle = nan", "nan is not between 0 and a year"),
        (b"first_output = 0", "--first-output cannot be 0"),
        (b"replays = 2020-01-01", "replays must be a number"),
        (b'provider = "openai"\napi_key = "s3cret-\xe2\x82\xac"', "characters that HTTP cannot carry"),
        (b'provider = "openai"\napi_key = "s3cret\\nx"', "contains a line break"),
        (b'provider = "openai"\napi_key_env = "s3cret-1"', "takes the name of an environment variable, not a key"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_configuration_file(written: bytes, said: str, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(written)
    given = ["hi"] if b"provider" in written or written.startswith(b"base_url") else HERE
    refuses(cli("run", *given, UNBROKEN_CONFIG=str(path)), said)


@pytest.mark.parametrize("path", ["/dev/zero", "/", "x" * 5000, BYTE, "~/nowhere.toml"])
def test_a_path_of_the_file(path: str, cli: Cli) -> None:
    refuses(cli("run", *HERE, UNBROKEN_CONFIG=path), "")
    refuses(cli("relay", "--port", "0", UNBROKEN_CONFIG=path), "")


def test_a_file_that_notepad_wrote_is_read(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b'\xef\xbb\xbfprovider = "nope"\r\nquiet = true\r\n')
    refuses(cli("run", "hi", UNBROKEN_CONFIG=str(path)), "unknown provider 'nope'")


# The environment


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"UNBROKEN_REPLAYS": "many"}, "'many' is not a valid integer"),
        ({"UNBROKEN_REPLAYS": "9" * 5000}, "is not a valid integer"),
        ({"UNBROKEN_IDLE": "soon"}, "'soon' is not a number of seconds"),
        ({"UNBROKEN_IDLE": BYTE}, "is not a number of seconds"),
        ({"UNBROKEN_FORMAT": "xml"}, "'xml' is not one of"),
        ({"UNBROKEN_QUIET": "maybe"}, "'maybe' is not a valid boolean"),
        ({"UNBROKEN_MODEL": BYTE}, "the name of the model is not UTF-8 text"),
        ({"UNBROKEN_SYSTEM": BYTE}, "the system prompt is not UTF-8 text"),
        ({"UNBROKEN_API_KEY_ENV": SECRET + "-1"}, "takes the name of an environment variable, not a key"),
        ({"XDG_CONFIG_HOME": "/dev/null"}, "cannot read /dev/null/unbroken/config.toml: Not a directory"),
    ],
    ids=str,
)
def test_a_variable(variables: Mapping[str, str], said: str, cli: Cli) -> None:
    refuses(cli("run", *HERE, **variables), said)


@pytest.mark.parametrize(
    ("variable", "path", "said"),
    [
        ("SSL_CERT_FILE", "/nope", "cannot use SSL_CERT_FILE '/nope': No such file or directory"),
        ("SSL_CERT_FILE", "/etc", "cannot use SSL_CERT_FILE '/etc': Is a directory"),
        ("SSL_CERT_FILE", "/etc/passwd", "cannot use SSL_CERT_FILE '/etc/passwd': it holds no PEM certificate"),
        ("SSL_CERT_DIR", "/nope", "cannot use SSL_CERT_DIR '/nope': No such file or directory"),
        ("SSL_CERT_DIR", "/nope:/neither", "cannot use SSL_CERT_DIR '/nope:/neither': No such file or directory"),
        ("UNBROKEN_CA_FILE", "/nope", "cannot use the CA file '/nope': No such file or directory"),
        ("UNBROKEN_CA_FILE", BYTE, "cannot use the CA file"),
    ],
)
def test_a_variable_with_certificates(variable: str, path: str, said: str, cli: Cli) -> None:
    refuses(cli("run", "--base-url", "https://127.0.0.1:1/v1", "hi", **{variable: path}), said)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("command", [("relay", "--port", "0"), ("exec", "true")])
def test_a_variable_with_certificates_for_a_relay(command: tuple[str, ...], variable: str, cli: Cli) -> None:
    refuses(cli(*command, **{variable: "/nope"}), f"cannot use {variable} '/nope': No such file or directory")


def test_a_key_log_that_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    import trustme

    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    given = ("--base-url", "https://127.0.0.1:1/v1", "--ca-file", str(authority), "hi")
    refuses(cli("run", *given, SSLKEYLOGFILE="/nope/keys"), "cannot use SSLKEYLOGFILE '/nope/keys': No such file")


@pytest.mark.parametrize("key", [f"{SECRET}€", f"{SECRET}{BYTE}", f"{SECRET}\nx"])
def test_a_key(key: str, cli: Cli) -> None:
    refuses(cli("run", "--base-url", "http://h", "--api-key-env", "KEY", "hi", KEY=key), "")


# Arguments


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", *HERE, "--model", BYTE], "the name of the model is not UTF-8 text"),
        (["run", "--base-url", "http://h", BYTE], "the prompt is not UTF-8 text"),
        (["run", "--provider", BYTE, "hi"], "unknown provider"),
        (["lab", "upstream", "--port", "65536"], "is not a port"),
        (["lab", "upstream", "--port", "-1"], "is not a port"),
        (["lab", "upstream", "--think", "-1"], "is not between 0 and a year"),
        (["lab", "upstream", "--times", "-1"], "is not in the range"),
        (["lab", "upstream", "--fault", "nope"], "'nope' is not a fault"),
        (["lab", "proxy", "--idle", "soon"], "'soon' is not a number of seconds"),
        (["lab", "proxy", "--idle", "1", "--port", "1e5"], "is not a port"),
        (["lab", "proxy", "--idle", "1", "--cuts", "-1"], "is not in the range"),
        (["lab", "nope"], "No such command 'nope'"),
    ],
    ids=str,
)
def test_an_argument(args: Sequence[str], said: str, cli: Cli) -> None:
    refuses(cli(*args), said)


@pytest.mark.parametrize("args", [["upstream"], ["proxy", "--idle", "1"], ["cut", "--to", "http://h"]])
def test_a_port_of_the_lab_that_is_taken(args: Sequence[str], cli: Cli) -> None:
    with Upstream() as upstream:
        refuses(cli("lab", *args, "--port", str(upstream.port)), f"cannot listen on port {upstream.port}: Address")


def test_the_lab_alone_shows_its_help(cli: Cli) -> None:
    ended = cli("lab")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("Usage: unbroken lab ")


@pytest.mark.parametrize("option", ["--provider", "--model", "--base-url", "--api-key-env", "--proxy"])
def test_init_with_bytes_that_are_no_text(option: str, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    refuses(cli("init", option, BYTE, UNBROKEN_CONFIG=str(path)), f"{option} is not UTF-8 text")
    assert not path.exists()


# Streams


def test_a_stdin_without_an_end_is_cut_off(env: dict[str, str]) -> None:
    ended = shell("yes | unbroken run --provider ollama --model m", env=env)
    refuses(ended, "stdin goes on after 64 MiB, the most that a prompt may have; give a shorter one")


def test_a_stdin_of_the_longest_size_is_read(env: dict[str, str], tmp_path: Path) -> None:
    longest = tmp_path / "longest"
    longest.write_bytes(b"x" * MAX_STDIN)  # no zeros: each is six characters in JSON
    with longest.open("rb") as file:
        ended = run("run", *HERE, env=env, stdin=file.fileno())
    assert (ended.code, ended.err.partition(" (")[0]) == (5, "unbroken: connection refused")


def test_a_stdin_that_somebody_made_non_blocking(env: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with Upstream() as upstream:
        process = subprocess.Popen(
            [*UNBROKEN, "run", "--base-url", upstream.url, "-q"], env=env, stdin=reading, stdout=subprocess.PIPE
        )
        os.close(reading)
        os.write(writing, b"half ")
        os.write(writing, b"and half")
        os.close(writing)
        out, _ = process.communicate(timeout=20)
        assert b'"content":"half and half"' in upstream.requests[0].body
    assert (process.returncode, out) == (0, b"Hello from the lab.\n")


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape", "ascii"])
@pytest.mark.parametrize(
    ("key", "said"),
    [
        (b"s3cret\xff\n", "characters that HTTP cannot carry"),
        ("s3cret€\n".encode(), "characters that HTTP cannot carry"),
        (b"s3cret\0\n", "characters that HTTP cannot carry"),
        (b"s3cret\x1b[A\n", "characters that HTTP cannot carry"),
        (b"\n", "no key"),
        (b"s3cret" * 10_000, "the first line of stdin is no key: it is longer than 16384 bytes"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_key_on_stdin(key: bytes, said: str, encoding: str, env: dict[str, str], tmp_path: Path) -> None:
    env |= {"PYTHONIOENCODING": encoding, "UNBROKEN_CONFIG": str(tmp_path / "new.toml")}
    refuses(run("init", "--provider", "openai", "--store-key", env=env, stdin=key), said)
    assert not (tmp_path / "new.toml").exists()


def test_a_key_from_a_stdin_that_can_only_be_written(env: dict[str, str]) -> None:
    refuses(shell("unbroken init --provider openai --store-key 0>/dev/null", env=env), "cannot read the key from stdin")


def test_typing_what_is_no_text(env: dict[str, str], tmp_path: Path) -> None:
    env |= {"PYTHONIOENCODING": "utf-8:strict", "UNBROKEN_CONFIG": str(tmp_path / "new.toml")}
    with Terminal("init", env=env) as terminal:
        terminal.seen.wait_for("[deepseek]: ")
        os.write(terminal._master, b"\xff\n")
        seen = terminal.seen.wait_for_end()  # it has the byte, as the terminal shows it
        assert terminal._process.wait() == 2
    assert b"unbroken: what was typed is not UTF-8 text" in seen
    assert b"Traceback" not in seen


COMMANDS = ["run --base-url nope hi", "run", "init", "relay --port 65536", "nope", "lab proxy"]
CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-", "0>/dev/null", "2>/dev/full"]
EACH_ONCE = {(COMMANDS[number % len(COMMANDS)], streams) for number, streams in enumerate(CLOSED)}


@pytest.mark.parametrize(
    ("args", "streams"),
    [
        pytest.param(args, streams, marks=[] if (args, streams) in EACH_ONCE else [pytest.mark.slow])
        for args in COMMANDS
        for streams in CLOSED
    ],
)
def test_streams_that_are_closed(args: str, streams: str, env: dict[str, str]) -> None:
    ended = shell(f"unbroken {args} {streams}", env=env)
    assert (ended.code, ended.out) == (2, "")
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_the_table_of_the_demo_in_any_encoding(encoding: str, env: dict[str, str]) -> None:
    code = "from unbroken.cli import demo; outcome = demo.DemoOutcome('Unbroken', 'The s\xe9a', 'answered', True)"
    code += "; demo._print(demo.side_by_side([outcome, outcome], 40))"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env | {"PYTHONIOENCODING": encoding}, capture_output=True, check=True
    )
    shown = ran.stdout.decode(encoding)
    assert (" \u2502 Unbroken" if encoding == "utf-8" else " | Unbroken") in shown


@pytest.mark.parametrize("args", ["", "run", "exec", "relay", "init", "demo", "lab", "lab upstream", "completion"])
def test_help_in_an_encoding_that_lacks_much(args: str, env: dict[str, str]) -> None:
    ended = run(*args.split(), "--help", env=env | {"PYTHONIOENCODING": "koi8-r:strict"})
    assert (ended.code, ended.err) == (0, "")


def test_a_working_folder_that_is_gone(env: dict[str, str], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    ended = shell(f"cd {gone}; rmdir {gone}; unbroken run --base-url nope hi", env=env)
    refuses(ended, "'nope' is not an http:// or https:// URL")
