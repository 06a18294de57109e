"""What a container and systemd are given: the files, and what they say, done without a builder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from cli.programs import Program, environment
from ports import free_port
from relay.redis_server import RedisServer
from unbroken.cli.relay import command as relay
from unbroken.relay.settings import Settings
from yaml_files import parse

ROOT = Path(__file__).parents[2]
CONTAINERFILE = (ROOT / "Containerfile").read_text("utf-8")
TOKEN = "UNBROKEN_RELAY_TOKEN"


def instructions() -> Iterator[tuple[str, str]]:
    """The instructions and their arguments, with the lines that go on with them."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, argument = line.partition(" ")
        yield name, argument.strip()


def arguments(name: str) -> list[str]:
    return [argument for found, argument in instructions() if found == name]


def command_line() -> list[str]:
    entry, given = json.loads(arguments("ENTRYPOINT")[0]), json.loads(arguments("CMD")[0])
    assert entry[:2] == ["unbroken", "relay"]
    return [*entry[2:], *given]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


def test_every_file_that_is_copied_is_there_and_sent_to_the_builder() -> None:
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    for copied in arguments("COPY"):
        if not copied.startswith("--from="):
            for name in copied.split()[:-1]:
                assert (ROOT / name).exists()
                assert f"!{name}" in sent


def test_both_stages_are_of_one_python_that_is_supported() -> None:
    images = {argument.split()[0] for argument in arguments("FROM")}
    assert images == {"python:3.13-slim"}
    assert "Python :: 3.13" in (ROOT / "pyproject.toml").read_text()


def test_it_runs_as_a_user_without_rights() -> None:
    names = [name for name, _ in instructions()]
    (user,) = arguments("USER")
    assert int(user) > 0
    assert f"--uid {user}" in CONTAINERFILE
    assert names.index("USER") < names.index("ENTRYPOINT")


def test_its_port_is_the_relays_own() -> None:
    (port,) = {param.default for param in relay.params if param.name == "port"}
    assert arguments("EXPOSE") == [str(port)]
    assert f"http://127.0.0.1:{port}/_unbroken/health" in arguments("HEALTHCHECK")[0]


def test_its_command_line_is_one() -> None:
    given, rest, _ = relay.make_parser(click.Context(relay)).parse_args(command_line())
    assert rest == []
    assert (given["host"], given["token_env"], given["allow_host"]) == ("0.0.0.0", TOKEN, ["unbroken"])


def test_without_a_token_it_does_not_start(env: dict[str, str]) -> None:
    with Program("relay", *command_line(), env=env) as program:
        ended = program.end()
    assert ended.code == 2
    assert f"--token-env names {TOKEN}, which is not set" in ended.err


def test_its_health_check_is_answered_while_it_serves_and_only_then(env: dict[str, str]) -> None:
    port = str(free_port())
    _, _, words = arguments("HEALTHCHECK")[0].partition("CMD ")
    python, *check = [word.replace("8765", port) for word in json.loads(words)]
    assert python == "python"
    asks = [sys.executable, *check]
    proxied = env | {"http_proxy": "http://127.0.0.1:1"}
    assert subprocess.run(asks, env=proxied, stderr=subprocess.DEVNULL, check=False).returncode == 1
    with Program("relay", *command_line(), "--port", port, env=env | {TOKEN: "t-42"}) as program:
        program.err.wait_for("listening on")
        subprocess.run(asks, env=proxied, timeout=20, check=True)
    assert "t-42" not in program.err.text


@pytest.mark.slow
def test_its_installation_works(tmp_path: Path, env: dict[str, str]) -> None:
    """The lines of the first stage, in folders of their own, with the Python that is here."""
    source, target = tmp_path / "src", tmp_path / "unbroken"
    source.mkdir()
    for copied in arguments("COPY")[:2]:
        *names, _ = copied.split()
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, source)
    script = arguments("RUN")[0].replace("/opt/unbroken", shlex.quote(str(target)))
    script = script.replace("python -m venv", f"{shlex.quote(sys.executable)} -m venv", 1)
    subprocess.run(["sh", "-c", script], cwd=source, check=True, capture_output=True, timeout=300)
    ran = subprocess.run(
        [target / "bin" / "unbroken", "relay", *command_line()],
        env=env | {"PYTHONPATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, TOKEN in ran.stderr) == (2, True)


# compose

COMPOSE = ROOT / "deploy" / "compose.yaml"


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = parse(COMPOSE)["services"]
    return found


def test_every_name_of_the_example_is_there(services: dict[str, Any]) -> None:
    networks = parse(COMPOSE)["networks"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        assert set(service["networks"]) <= networks.keys()
    assert services["store"]["networks"] == ["inside"]
    assert networks["inside"] == {"internal": True}
    build = services["relay-a"]["build"]
    assert (COMPOSE.parent / build["context"] / build["dockerfile"]).samefile(ROOT / "Containerfile")


def test_its_relays_are_two_that_know_one_store(services: dict[str, Any], env: dict[str, str]) -> None:
    assert services["relay-a"] == services["relay-b"]
    service = services["relay-a"]
    entry = json.loads(arguments("ENTRYPOINT")[0])[2:]
    given, rest, _ = relay.make_parser(click.Context(relay)).parse_args([*entry, *service["command"]])
    assert rest == []
    assert (float(given["keep"]), given["store"]) == (300.0, "redis://store:6379/0")
    assert "'.[relay,redis]'" in arguments("RUN")[0]
    assert set(service["environment"]) == {TOKEN}
    assert int(service["stop_grace_period"].removesuffix("s")) > Settings(upstreams={}).grace
    with RedisServer() as redis:
        words = [redis.url if word == given["store"] else word for word in service["command"]]
        with Program("relay", *entry, *words, "--port", "0", env=env | {TOKEN: "t-42"}) as program:
            program.err.wait_for("listening on")


def test_its_balancer_is_that_of_the_page_and_knows_the_relays(services: dict[str, Any]) -> None:
    (mounted,) = services["balancer"]["volumes"]
    source, target, mode = mounted.split(":")
    assert (target, mode) == ("/etc/nginx/conf.d/default.conf", "ro")
    conf = (COMPOSE.parent / source).read_text("utf-8")
    (port,) = arguments("EXPOSE")
    assert re.findall(r"server (\S+):(\d+)", conf) == [("relay-a", port), ("relay-b", port)]
    (published,) = services["balancer"]["ports"]
    assert re.findall(r"listen (\d+);", conf) == [published.split(":")[-1]]


def test_its_store_takes_its_options(services: dict[str, Any]) -> None:
    program, *options = services["store"]["command"]
    assert program == "valkey-server"
    with RedisServer(*options) as redis:
        assert b"noeviction" in redis.ask("CONFIG", "GET", "maxmemory-policy")
        assert b"1073741824" in redis.ask("CONFIG", "GET", "maxmemory")


# systemd

UNIT = ROOT / "deploy" / "unbroken.service"


def test_the_page_quotes_the_unit() -> None:
    page = (ROOT / "docs" / "relay.md").read_text("utf-8")
    (quoted,) = re.findall(r"^```ini\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert quoted == UNIT.read_text("utf-8")
    assert "deploy/unbroken.service" in page


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_accepted(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("unbroken"))
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/unbroken", program))
    verify = ["systemd-analyze", "verify", str(unit)]
    ran = subprocess.run(verify, capture_output=True, text=True, timeout=60, env=os.environ, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
