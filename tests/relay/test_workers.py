"""Several processes that serve together: what they share, how they end, and what is left of them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.programs import environment
from relay.asked import CHAT, GEMINI
from relay.feeds import Feed
from relay.records import series
from relay.redis_server import RedisServer
from relay.serving import PATIENCE, Caller, RelayProgram, poll, settings_to
from unbroken.errors import UsageError
from unbroken.lab import Fault, ScriptedAnswer, Upstream
from unbroken.relay import workers
from wire.servers import refuses

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them"),
]

THINK = 1.0
FIRST_OUTPUTS = "unbroken_first_output_seconds_count{upstream=lab}"
TURNS_OF_LAB = "unbroken_turns_total{dialect=openai-chat,outcome=answered,upstream=lab}"


class Crew:
    """``unbroken relay`` with several workers.

    Args:
        size: how many.
        to: the upstream's URL.
        folder: for temporary files.
        args: further options.
        prefix: of the command.

    Attributes:
        program: the process that was started.
        port: where they listen.
    """

    def __init__(self, size: int, to: str, folder: Path, *args: str, prefix: tuple[str, ...] = ()) -> None:
        env = environment(folder, TMPDIR=str(folder))
        options = ["--port", "0", "--upstream", f"lab={to}", "--workers", str(size), *args]
        self.size = size
        self._callers = ExitStack()
        self.program = RelayProgram("relay", *options, env=env, prefix=prefix)
        self._folder = folder
        said = self.program.err.wait_for("listening on http://127.0.0.1:")
        self.port = int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", said)[1])  # type: ignore[index]

    @property
    def metrics(self) -> Path | None:
        """The folder of their metrics, ``None`` where there is none."""
        return next(self._folder.glob("unbroken-*"), None)

    def ready(self) -> set[int]:
        """Wait until every worker serves; their processes."""

        def serving() -> set[int]:
            inode = _inode(self.port, 0, listening=True)
            found = {pid for pid in self.pids() if _watches(pid, f"socket:[{inode}]")}
            return found if found == self.pids() and len(found) == self.size else set()

        return poll(serving, 3 * PATIENCE)

    def pids(self) -> set[int]:
        """Every worker that there is, dead ones too."""
        return {pid for pid in _children(self.program.pid) if "spawn_main" in _command(pid) or _state(pid) == "Z"}

    def connect(self) -> Caller:
        """A client; nobody knows of which worker."""
        return self._callers.enter_context(Caller(self.port))

    def owner(self, caller: Caller) -> int:
        """The worker that has accepted a client."""
        link = f"socket:[{poll(lambda: _inode(self.port, caller.sock.getsockname()[1]))}]"
        return poll(lambda: next((pid for pid in self.pids() if link in _descriptors(pid).values()), 0))

    def clients(self) -> dict[int, Caller]:
        """A client of each worker. One that has its client stands still meanwhile: it might take all."""
        found: dict[int, Caller] = {}
        try:
            while len(found) < self.size:
                caller = self.connect()
                pid = self.owner(caller)
                assert found.setdefault(pid, caller) is caller
                os.kill(pid, signal.SIGSTOP)
        finally:
            for pid in found:
                os.kill(pid, signal.SIGCONT)
        return found

    def ended(self, within: float = 2 * PATIENCE) -> int:
        """Wait until all of them have ended; the exit code."""
        self.program.err.wait_for_end(within)
        return self.program.end().code

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._callers.close()
        left = self.pids()
        self.program.__exit__()
        for pid in left:
            if _state(pid):
                os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """State, parent and so on (proc(5), ``/proc/pid/stat``); nothing of a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    return (_stat(pid) or [""])[0]


def _children(pid: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [found for found in pids if _stat(found)[1:2] == [str(pid)]]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _maps(pid: int) -> str:
    """What it has loaded."""
    return Path(f"/proc/{pid}/maps").read_text()


def _descriptors(pid: int) -> dict[str, str]:
    """Its descriptors, and what each is of."""
    found = {}
    try:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            found[path.name] = str(path.readlink())
    except OSError:
        pass
    return found


def _watches(pid: int, link: str) -> bool:
    """Whether its event loop waits for something at a descriptor of this."""
    descriptors = _descriptors(pid)
    wanted = {number for number, target in descriptors.items() if target == link}
    try:
        told = [
            Path(f"/proc/{pid}/fdinfo/{number}").read_text()
            for number, target in descriptors.items()
            if target == "anon_inode:[eventpoll]"
        ]
    except OSError:
        return False
    return any(number in wanted for text in told for number in re.findall(r"^tfd:\s+(\d+)", text, re.M))


def _inode(local: int, remote: int, *, listening: bool = False) -> str:
    """The inode of the accepted end of a connection, or of a socket that listens; ``""`` if there is none."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        is_it = (fields[3] == "0A") == listening and fields[9] != "0"
        if is_it and fields[1].endswith(f":{local:04X}") and fields[2].endswith(f":{remote:04X}"):
            return fields[9]
    return ""


@pytest.fixture
def folder() -> Iterator[Path]:
    """For temporary files."""
    with tempfile.TemporaryDirectory(prefix="ub-") as name:
        yield Path(name)


@pytest.fixture
def thinking() -> Iterator[Upstream]:
    with Upstream(answer=ScriptedAnswer(think=THINK)) as upstream:
        yield upstream


@pytest.fixture
def stalling() -> Iterator[Upstream]:
    """An upstream that thinks for ever about each request."""
    with Upstream(faults=[Fault("stall", "after_headers")] * 20) as upstream:
        yield upstream


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Crew]]:
    """Starts crews of two: ``start(upstream, *args, prefix=())``."""
    with ExitStack() as stack:
        yield lambda upstream, *args, **more: stack.enter_context(Crew(2, upstream.url, folder, *args, **more))


Start = Callable[..., Crew]


def begun(crew: Crew, upstream: Upstream, clients: dict[int, Caller]) -> None:
    """Begin a turn at each of the clients, and wait until the upstream has them all."""
    for client in clients.values():
        CHAT.begin(client)
    assert upstream.wait_for(lambda: len(upstream.requests) == len(clients), PATIENCE)


def gone(pids: set[int]) -> bool:
    return not any(_state(pid) for pid in pids)


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    """Before an upstream called ``lab`` that answers, and one called ``slow`` that never does."""
    with (
        Upstream() as lab,
        Upstream(faults=[Fault("stall", "after_headers")] * 20) as slow,
        tempfile.TemporaryDirectory(prefix="ub-") as name,
        Crew(2, lab.url, Path(name), "--upstream", f"slow={slow.url}", "--log-format", "json") as crew,
    ):
        crew.ready()
        yield crew


@pytest.fixture(scope="module")
def clients(crew: Crew) -> dict[int, Caller]:
    return crew.clients()


class TestTogether:
    """What does them no harm is asked of the same two."""

    def test_share_the_port(self, crew: Crew, clients: dict[int, Caller]) -> None:
        assert clients.keys() == crew.ready()
        for client in clients.values():
            assert client.ask("GET", "/_unbroken/health").json == {"status": "ok"}

    def test_count_where_nobody_else_can(self, crew: Crew) -> None:
        assert crew.metrics
        assert stat.S_IMODE(crew.metrics.stat().st_mode) == 0o700

    def test_count_together(self, crew: Crew, clients: dict[int, Caller]) -> None:
        one, other = clients.values()
        before = poll_metrics(one, lambda found: found["unbroken_turns_running"] == 0)
        for client, asked in ((one, CHAT), (other, CHAT), (other, GEMINI)):
            path, body = asked.request()
            assert client.ask_json(f"/lab{path}", body).whole
        for client in clients.values():
            found = poll_metrics(client, lambda found: found.get(FIRST_OUTPUTS) == before.get(FIRST_OUTPUTS, 0) + 3)
            assert found[TURNS_OF_LAB] == before.get(TURNS_OF_LAB, 0) + 2
            assert found["unbroken_turns_running"] == 0

    def test_have_a_page_each_that_says_whose_it_is(self, crew: Crew, clients: dict[int, Caller]) -> None:
        before = {pid: Feed(connect_to(crew, pid)).next("hello") for pid in clients}
        for pid, hello in before.items():
            assert hello["shows"].startswith(f"worker {pid} alone")
        one, other = clients
        asking = connect_to(crew, one)
        feed = Feed(connect_to(crew, one))
        feed.next("hello")
        asking.begin("POST", f"/slow{CHAT.path}", body=json.dumps(CHAT.request()[1]).encode())
        assert feed.next("live", lambda told: told["running"] == 1)
        poll_metrics(clients[other], lambda found: found["unbroken_turns_running"] == 1)
        assert Feed(connect_to(crew, other)).next("hello")["running"] == 0
        asking.close()
        ended = feed.next("ended")
        assert ended["totals"]["turns"] == before[one]["totals"]["turns"] + 1
        assert Feed(connect_to(crew, other)).next("hello")["totals"] == before[other]["totals"]
        poll_metrics(clients[other], lambda found: found["unbroken_turns_running"] == 0)

    def test_write_lines_that_stay_whole(self, crew: Crew, clients: dict[int, Caller]) -> None:
        def ask(client: Caller) -> None:
            for number in range(100):
                client.ask("GET", f"/lab/{'x' * 2000}/{number}")

        asking = [threading.Thread(target=ask, args=(client,)) for client in clients.values()]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(PATIENCE)
        poll(lambda: crew.program.err.data.count(b"/lab/xxx") == 200)
        lines = [json.loads(line) for line in crew.program.err.text.splitlines()[1:]]  # the first is for scripts
        passed = [line["id"] for line in lines if line.get("outcome") == "passed"]
        assert len(passed) == len(set(passed)) == 200


def poll_metrics(client: Caller, condition: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The metrics, once they say so: a turn is counted after its client has its answer."""

    def look() -> dict[str, float]:
        found = series(client.ask("GET", "/_unbroken/metrics").body)
        return found if condition(found) else {}

    return poll(look)


def connect_to(crew: Crew, pid: int) -> Caller:
    """A client of this worker."""
    return crew.clients()[pid]


@pytest.mark.slow
def test_with_a_store_the_page_is_that_of_all(start: Start) -> None:
    with RedisServer() as redis, Upstream() as lab:
        crew = start(lab, "--keep", "9", "--store", redis.url)
        crew.ready()
        clients = crew.clients()
        for client in clients.values():
            assert client.ask_json(*CHAT.request()).whole
        for pid in clients:
            feed = Feed(connect_to(crew, pid))
            hello = feed.next("hello", lambda told: told["shows"] == "2 relays together")
            assert hello["totals"]["turns"] == len(hello["recent"]) == 2


class TestKilled:
    @pytest.mark.slow
    def test_a_worker_is_replaced_while_the_store_is_away(self, start: Start) -> None:
        with RedisServer() as redis, Upstream() as lab:
            crew = start(lab, "--keep", "9", "--store", redis.url)
            pids = crew.ready()
            victim = min(pids)
            redis.stop()
            os.kill(victim, signal.SIGKILL)
            poll(lambda: not _state(victim))
            assert len(crew.ready() - pids) == 1
            clients = crew.clients().values()
            for client in clients:
                assert client.ask_json(*CHAT.request()).whole
            redis.start()
            for client in clients:
                before = redis.known()
                poll(lambda: client.ask_json(*CHAT.request()).whole and redis.known() - before)  # noqa: B023

    def test_a_worker_is_replaced_and_the_others_go_on(self, start: Start) -> None:
        faults = [None, *[Fault("stall", "after_headers", seconds=3 * PATIENCE)] * 2]
        with Upstream(faults=faults) as upstream:
            crew = start(upstream)
            pids = crew.ready()
            clients = crew.clients()
            (victim, lost), (survivor, kept) = clients.items()
            assert lost.ask_json(*CHAT.request()).whole
            for client in clients.values():
                CHAT.begin(client)
            poll_metrics(watching := connect_to(crew, survivor), lambda found: found["unbroken_turns_running"] == 2)

            os.kill(victim, signal.SIGKILL)
            assert lost.rest() == b""
            poll(lambda: not _state(victim))  # not even as a zombie
            replaced = crew.ready()
            assert len(replaced - pids) == 1
            assert replaced & pids == {survivor}

            found = poll_metrics(watching, lambda found: found["unbroken_turns_running"] == 1)
            assert found[TURNS_OF_LAB] == 1  # what the dead one has counted
            assert Feed(watching).next("hello")["running"] == 1
            assert kept.sock.getsockname()
            assert crew.clients().keys() == replaced

    def test_their_starter_leaves_them_to_finish_their_turns(self, start: Start, thinking: Upstream) -> None:
        crew = start(thinking)
        pids = crew.ready()
        clients = crew.clients()
        begun(crew, thinking, clients)
        os.kill(crew.program.pid, signal.SIGKILL)
        for client in clients.values():
            answer = client.answer()
            assert (answer.status, answer.whole) == (200, True)
        assert crew.ended() == -signal.SIGKILL
        poll(lambda: gone(pids))
        assert not crew.metrics


def nohup(crew: Crew) -> None:
    """What it ignores stays ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        os.killpg(crew.program.pid, number)
    for client in crew.clients().values():
        assert client.ask("GET", "/_unbroken/health").status == 200
    crew.program.send(signal.SIGTERM)


def systemd(crew: Crew) -> None:
    """It signals all processes of a service, in whatever order."""
    idle = crew.clients()
    for pid, client in idle.items():
        client.ask("GET", "/_unbroken/health")
        os.kill(pid, signal.SIGTERM)
        assert client.ended()
    crew.program.send(signal.SIGTERM)


def ctrl_c(crew: Crew) -> None:
    """A terminal signals all processes, too."""
    os.killpg(crew.program.pid, signal.SIGINT)


def hang_up(crew: Crew) -> None:
    """So does one that is closed."""
    os.killpg(crew.program.pid, signal.SIGHUP)


class TestToldToStop:
    @pytest.mark.parametrize("tell", [nohup, systemd, ctrl_c, hang_up])
    def test_they_finish_their_turns_and_take_nothing_new(
        self, start: Start, thinking: Upstream, tell: Callable[[Crew], None]
    ) -> None:
        ignoring = ("sh", "-c", 'trap "" INT HUP; exec setsid "$@"', "sh")
        crew = start(thinking, prefix=ignoring if tell is nohup else ("setsid",))
        pids = crew.ready()
        clients = crew.clients()
        begun(crew, thinking, clients)
        tell(crew)
        poll(lambda: refuses(crew.port))
        assert not gone(pids)
        for client in clients.values():
            answer = client.answer()
            assert (answer.status, answer.whole) == (200, True)
        assert crew.ended() == 0
        assert gone(pids)
        assert not crew.metrics
        assert "Traceback" not in crew.program.err.text

    def test_twice_they_end_at_once(self, start: Start, stalling: Upstream) -> None:
        crew = start(stalling)
        pids = crew.ready()
        clients = crew.clients()
        begun(crew, stalling, clients)
        crew.program.send(signal.SIGTERM)
        poll(lambda: refuses(crew.port))
        assert not gone(pids)
        began = time.monotonic()
        crew.program.send(signal.SIGTERM)
        assert crew.ended() == 128 + signal.SIGTERM
        assert time.monotonic() - began < PATIENCE
        assert gone(pids)
        assert not crew.metrics

    def test_before_they_have_begun_they_end_without_a_word(self, start: Start, thinking: Upstream) -> None:
        """A terminal tells them all, and most of their start is importing."""
        crew = start(thinking, prefix=("setsid",))
        pids = poll(lambda: found if len(found := crew.pids()) == 2 else set())
        poll(lambda: all("msgspec" in _maps(pid) for pid in pids))
        os.killpg(crew.program.pid, signal.SIGINT)
        assert crew.ended() == 0
        assert gone(pids)
        assert not crew.metrics
        assert re.sub(r"^(listening|status page|/v1/).*\n", "", crew.program.err.text, flags=re.M) == ""

    @pytest.mark.slow
    def test_a_worker_that_does_not_end_is_ended(self, start: Start, thinking: Upstream) -> None:
        crew = start(thinking, "--grace", "0.1")
        pids = crew.ready()
        os.kill(min(pids), signal.SIGSTOP)
        crew.program.send(signal.SIGTERM)
        assert crew.ended(3 * PATIENCE) == 0
        assert gone(pids)
        assert not crew.metrics


class TestStarting:
    def test_workers_that_cannot_serve_are_not_started_again_and_again(self, start: Start, thinking: Upstream) -> None:
        """Here they may not write as much as the files of their metrics have."""
        crew = start(thinking, prefix=("sh", "-c", 'ulimit -f 1; exec "$@"', "sh"))
        assert crew.ended() == 1
        assert 1 <= crew.program.err.text.count("OSError: [Errno 27]") <= 2
        assert "failed to start" in crew.program.err.text
        assert not crew.metrics

    def test_a_worker_that_crashes_as_soon_as_it_serves_is_not_started_again_either(
        self, start: Start, thinking: Upstream
    ) -> None:
        crew = start(thinking)
        pids = crew.ready()
        os.kill(min(pids), signal.SIGSEGV)
        assert crew.ended() == 128 + signal.SIGSEGV
        assert gone(pids)
        assert not crew.metrics

    def test_one_serves_alone_and_needs_no_files(self, thinking: Upstream, folder: Path) -> None:
        with Crew(1, thinking.url, folder) as crew:
            CHAT.begin(crew.connect())
            assert thinking.wait_for(lambda: thinking.requests, PATIENCE)
            assert _children(crew.program.pid) == []
            assert list(folder.iterdir()) == []
            found = series(crew.connect().ask("GET", "/_unbroken/metrics").body)
            assert found["unbroken_turns_running"] == 1

    def test_it_is_said_where_several_cannot_serve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.platform", "win32")
        with socket.socket() as sock, pytest.raises(UsageError, match="--workers needs a system with Unix signals"):
            workers.serve_together(2, settings_to("http://127.0.0.1:1"), sock, None)
