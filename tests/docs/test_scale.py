"""docs/scale.md: its relays behind its balancers, and what it says of what fails."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from docs.pages import ROOT
from ports import free_port
from real.test_servers import running
from relay.conftest import run_relay, stack
from relay.kept.clients import BODY, CHAT, KEY, RETRY, headers_of, is_whole, unchunked
from relay.kept.clients import LONG as ANSWER
from relay.redis_server import RedisServer
from relay.serving import Caller, Received, RelayProgram, RunRelay
from unbroken.lab import ScriptedAnswer, Upstream
from waiting import poll

__all__ = ["run_relay", "stack"]

PAGE = (ROOT / "docs" / "scale.md").read_text("utf-8")
HOST = "relay.example.com"
TOKEN = "t-0123456789-0123456789"
UNDER_KEY = ("idempotency-key", "my-turn-1")
FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}
LEASE_IS_OVER = 40.0
KEPT, COLLECTED = (f'unbroken_kept_turns_total{{event="{event}"}}' for event in ("kept", "collected"))


def quoted(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(block)


def relay_options() -> list[str]:
    """The options of the relays of several machines, without the store's."""
    (line,) = re.findall(r"unbroken (relay --host .*)", PAGE.replace("\\\n", ""))
    words = shlex.split(line)
    assert words[-2:] == ["--store", "redis://store.example.com:6379/0"]
    return words[1:-2]


class Site:
    """Two relays with one store, behind a balancer.

    Attributes:
        lab: the upstream.
        redis: the store.
        relays: the relays, by their ports.
    """

    def __init__(self, stack: ExitStack, run_relay: RunRelay, balancer: str, folder: Path) -> None:
        self._stack, self._run_relay, self._balancer, self._folder = stack, run_relay, balancer, folder
        self.relays: dict[int, RelayProgram] = {}
        self._port = free_port()

    def start(self, answer: ScriptedAnswer = ANSWER, edit: Callable[[str], str] = str) -> None:
        """Start everything; ``edit`` changes the balancer's configuration."""
        self.lab = self._stack.enter_context(Upstream(answer=answer))
        self.redis = self._stack.enter_context(RedisServer())
        given = [*relay_options(), "--store", self.redis.url, "--upstream", f"lab={self.lab.url}", "--proxy", "direct"]
        for _ in range(2):
            program, port = self._run_relay(*given, UNBROKEN_RELAY_TOKEN=TOKEN)
            self.relays[port] = program
        self._stack.enter_context(running(self._balancer, self._port, *self._command(edit(quoted(self._balancer)))))

    def _command(self, text: str) -> list[str]:
        for name, port in zip(("relay-a", "relay-b"), self.relays, strict=True):
            assert text.count(f"{name}:8765") == 1
            text = text.replace(f"{name}:8765", f"127.0.0.1:{port}")
        conf = self._folder / "balancer.conf"
        if self._balancer == "haproxy":
            conf.write_text(text.replace("bind :8080", f"bind 127.0.0.1:{self._port}"))
            return ["-f", str(conf)]
        self._folder.chmod(0o777)  # its worker gives up root's rights
        folders = [f"{kind}_temp_path {self._folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
        conf.write_text(
            f"daemon off; pid {self._folder}/pid; error_log {self._folder}/error.log; worker_processes 1; events {{}}\n"
            f"http {{ access_log off; {' '.join(folders)}\n"
            f"{text.replace('listen 8080', f'listen 127.0.0.1:{self._port}')} }}"
        )
        return ["-p", str(self._folder), "-c", str(conf)]

    def ask(self, method: str, target: str, *fields: tuple[str, str], body: Any = None) -> Caller:
        """Ask through the balancer."""
        caller = self._stack.enter_context(Caller(self._port))
        caller.sock.settimeout(LEASE_IS_OVER)
        headers = headers_of(KEY, ("x-unbroken-token", TOKEN), *fields)
        caller.begin(method, target, headers, json.dumps(body).encode() if body else b"", host=HOST)
        return caller

    def chat(self, *fields: tuple[str, str]) -> Caller:
        return self.ask("POST", CHAT, *fields, body=BODY)

    def begin(self, *fields: tuple[str, str]) -> tuple[Caller, Received]:
        """Ask, and read the head, which comes with the first words."""
        caller = self.chat(*fields)
        return caller, caller.head()

    def leave(self, *fields: tuple[str, str]) -> tuple[int, Received]:
        """Ask, and be cut off in the middle of the answer; which relay has the turn, and what has come of it."""
        caller, head = self.begin(*fields)
        head.body = unchunked(caller.until(b"word3"))
        caller.close()
        (holder,) = poll(lambda: self.counted(KEPT))
        return holder, head

    def counted(self, metric: str) -> list[int]:
        """Which relays have counted something."""
        return [port for port in self.relays if self._metric(port, metric)]

    def _metric(self, port: int, metric: str) -> float:
        with Caller(port) as caller:
            text = caller.ask("GET", "/_unbroken/metrics", [("x-unbroken-token", TOKEN)]).body.decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{metric} "))


@pytest.fixture(params=FILES)
def site(request: pytest.FixtureRequest, stack: ExitStack, run_relay: RunRelay, tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "balancer"
    folder.mkdir()
    return Site(stack, run_relay, request.param, folder)


@pytest.mark.parametrize("balancer", FILES)
def test_the_page_quotes_the_files(balancer: str) -> None:
    assert quoted(balancer) == (ROOT / "deploy" / FILES[balancer]).read_text("utf-8")
    assert f"(../deploy/{FILES[balancer]})" in PAGE


def test_a_client_that_was_cut_comes_back_to_the_other_relay(site: Site) -> None:
    site.start()
    holder, left = site.leave(UNDER_KEY)
    again = site.chat(UNDER_KEY).answer()
    assert is_whole(again)
    assert again.body.startswith(left.body)
    assert again.value("x-unbroken-turn") == left.value("x-unbroken-turn")
    rest = site.ask("GET", f"/_unbroken/turns/{left.value('x-unbroken-turn')}?after={len(left.body)}").answer()
    assert (rest.whole, left.body + rest.body) == (True, again.body)
    assert set(site.counted(COLLECTED)) - {holder}
    assert len(site.lab.requests) == 1


@pytest.mark.slow
def test_a_client_comes_back_to_any_worker(stack: ExitStack, run_relay: RunRelay) -> None:
    (line,) = re.findall(r"^unbroken relay (.*--workers 4.*)$", PAGE, re.MULTILINE)
    redis = stack.enter_context(RedisServer())
    lab = stack.enter_context(Upstream(answer=ANSWER))
    words = [redis.url if word.startswith("unix://") else word for word in shlex.split(line)]
    assert redis.url in words
    _, port = run_relay(*words, "--upstream", f"lab={lab.url}", "--proxy", "direct")
    for number in range(6):
        fields = headers_of(KEY, ("idempotency-key", f"my-turn-{number}"))
        with Caller(port) as first, Caller(port) as second:
            first.begin("POST", CHAT, fields, json.dumps(BODY).encode())
            turn = str(first.head().value("x-unbroken-turn"))
            first.close()
            poll(lambda turn=turn: turn in "".join(redis.known()))  # it is written behind the event
            again = second.ask("POST", CHAT, fields, json.dumps(BODY).encode())
        assert (is_whole(again), again.value("x-unbroken-turn")) == (True, turn)
    assert len(lab.requests) == 6


@pytest.mark.slow
def test_the_retry_of_the_balancers_504_collects_the_turn(site: Site) -> None:
    slow = ScriptedAnswer(text=ANSWER.text, think=1.5, think_at="before_headers")
    site.start(slow, lambda text: re.sub(r"(proxy_read_timeout|timeout server) 1h", r"\1 1s", text))
    assert site.chat().answer().status == 504
    poll(lambda: site.counted(KEPT))
    assert is_whole(poll(lambda: (again := site.chat(*RETRY).answer()).status == 200 and again, every=0.5))
    assert len(site.lab.requests) == 1


def holder_of_the_running(site: Site) -> RelayProgram:
    (port,) = site.counted("unbroken_turns_running")
    return site.relays[port]


@pytest.mark.slow
def test_a_relay_that_is_stopped_ends_its_turns_and_takes_no_more(site: Site) -> None:
    site.start()
    caller, head = site.begin()
    stopped = holder_of_the_running(site)
    stopped.send(signal.SIGTERM)
    assert is_whole(site.chat().answer())
    caller._read_chunks(head)
    assert is_whole(head)
    assert stopped.end().code == 0


@pytest.mark.slow
def test_a_whole_answer_of_a_relay_that_was_killed_is_collected_from_the_other(site: Site) -> None:
    site.start()
    holder, left = site.leave(UNDER_KEY)
    poll(lambda: site.ask("GET", "/_unbroken/turns").answer().json["turns"][0]["state"] == "whole")
    kill(site.relays.pop(holder))
    again = site.chat(UNDER_KEY).answer()
    assert is_whole(again)
    assert again.value("x-unbroken-turn") == left.value("x-unbroken-turn")
    assert len(site.lab.requests) == 1


@pytest.mark.slow
def test_a_running_turn_of_a_relay_that_is_killed_is_cut(site: Site) -> None:
    site.start()
    caller, head = site.begin(UNDER_KEY)
    kill(holder_of_the_running(site))
    with contextlib.suppress(ConnectionResetError):
        caller._read_chunks(head)
    assert not head.whole
    assert is_whole(site.chat(*RETRY).answer())
    assert not is_whole(site.chat(UNDER_KEY).answer())
    assert len(site.lab.requests) == 2
    assert is_whole(site.chat(UNDER_KEY).answer())
    assert len(site.lab.requests) == 3


def kill(relay: RelayProgram) -> None:
    relay.send(signal.SIGKILL)
    relay.wait()


@pytest.mark.slow
def test_without_the_store_turns_go_on_and_one_that_is_asked_for_again_is_a_new_one(site: Site) -> None:
    site.start()
    caller, head = site.begin(UNDER_KEY)
    site.redis.stop()
    caller._read_chunks(head)
    assert is_whole(head)
    away = site.ask("GET", f"/_unbroken/turns/{head.value('x-unbroken-turn')}").answer()
    assert (away.status, away.code) == (503, "store_away")
    assert is_whole(site.chat(UNDER_KEY).answer())
    assert len(site.lab.requests) == 2


@pytest.mark.slow
def test_a_client_that_leaves_in_silence_is_known_to_have_left(site: Site) -> None:
    """By haproxy only with abortonclose: what it has sent on is none of its business otherwise."""
    site.start(ScriptedAnswer(text=ANSWER.text, think=60, think_at="before_headers"))
    caller = site.chat()
    poll(lambda: site.lab.requests)
    caller.close()
    poll(lambda: site.counted(KEPT))
