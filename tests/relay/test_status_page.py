"""What the relay says of itself: its page, its health, and the feed that the page is drawn from."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import msgspec
import pytest

from relay.asked import CHAT, GEMINI
from relay.feeds import Feed
from relay.records import series
from relay.serving import Call, Caller, Serve, Served, poll
from unbroken.core.advice import SilentCut
from unbroken.lab import Fault, ScriptedAnswer, Upstream
from unbroken.relay import recorder, status_page

Watch = Callable[..., Feed]

TURN_FIELDS = {
    "id",
    "started",
    "elapsed",
    "method",
    "path",
    "upstream",
    "dialect",
    "streaming",
    "status",
    "outcome",
    "first_output",
    "bytes_in",
    "bytes_out",
    "heartbeats",
    "attempts",
    "retries",
    "replays",
    "detail",
    "suspicion",
    "seams",
    "resumes",
    "background",
    "unacknowledged",
}
ATTEMPT_FIELDS = {
    "number",
    "phase",
    "failure",
    "detail",
    "status",
    "after",
    "headers_after",
    "output_after",
    "elapsed",
    "silent",
    "finish_reason",
    "http_version",
    "route",
    "lowered_ping",
    "billed",
    "held",
    "path",
    "path_source",
    "resumes",
    "runs_on",
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_page, "TICK", 0.02)


@pytest.fixture
def watch(stack: ExitStack) -> Watch:
    """Opens feeds: ``watch(served)``."""

    def connect(served: Served, **options: bool) -> Feed:
        return Feed(stack.enter_context(Caller(served.port, **options)))

    return connect


@pytest.fixture
def thinking(stack: ExitStack) -> Upstream:
    """An upstream that thinks for ever about each request."""
    return stack.enter_context(Upstream(faults=[Fault("stall", "after_headers")] * 20))


@pytest.fixture
def begin(stack: ExitStack) -> Callable[[Served], Caller]:
    """Begins turns; the client that waits for its answer."""

    def ask(served: Served) -> Caller:
        caller = stack.enter_context(Caller(served.port))
        CHAT.begin(caller)
        return caller

    return ask


class TestFiles:
    @pytest.mark.parametrize(
        ("path", "content_type", "contains"),
        [
            ("/_unbroken/", "text/html; charset=utf-8", b"<!doctype html>"),
            ("/_unbroken/page.css", "text/css; charset=utf-8", b"{"),
            ("/_unbroken/page.js", "text/javascript; charset=utf-8", b"EventSource"),
        ],
    )
    def test_the_page_is_served_and_may_load_nothing_from_elsewhere(
        self, served: Served, call: Call, path: str, content_type: str, contains: bytes
    ) -> None:
        answer = call(served).ask("GET", path)
        assert (answer.status, answer.value("content-type")) == (200, content_type)
        assert contains in answer.body
        policy = answer.value("content-security-policy") or ""
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert answer.value("x-content-type-options") == "nosniff"
        assert answer.value("referrer-policy") == "no-referrer"
        assert answer.value("cache-control") == "no-cache"

    def test_the_page_asks_for_nothing_that_is_not_there(self, served: Served, call: Call) -> None:
        client = call(served)
        page = client.ask("GET", "/_unbroken/").body.decode()
        for piece in ('href="', 'src="'):
            for link in page.split(piece)[1:]:
                target = link.partition('"')[0]
                if not target.startswith(("data:", "#", "https://")):
                    assert client.ask("HEAD", f"/_unbroken/{target}").status == 200, target
        assert 'EventSource("feed")' in client.ask("GET", "/_unbroken/page.js").body.decode()

    def test_its_directory_is_named_in_full(self, served: Served, call: Call) -> None:
        answer = call(served).ask("GET", "/_unbroken")
        assert (answer.status, answer.value("location")) == (308, "/_unbroken/")

    @pytest.mark.parametrize("path", ["/_unbroken/", "/_unbroken/metrics", "/_unbroken/health", "/_unbroken/feed"])
    def test_a_head_has_no_body(self, served: Served, call: Call, path: str) -> None:
        client = call(served)
        assert client.ask("HEAD", path).status == 200
        assert client.ask("GET", "/_unbroken/health").json == {"status": "ok"}  # nothing stood in between

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
    def test_nothing_can_be_done_to_it(self, served: Served, call: Call, method: str) -> None:
        answer = call(served).ask(method, "/_unbroken/metrics")
        assert (answer.status, answer.code, answer.value("allow")) == (405, "method_not_allowed", "GET, HEAD")

    @pytest.mark.parametrize("path", ["/_unbroken/nothing", "/_unbroken/page.js/", "/_unbroken//", "/_unbroken/%2e."])
    def test_there_is_nothing_else(self, served: Served, call: Call, path: str) -> None:
        answer = call(served).ask("GET", path)
        assert answer.status in (404, 400)
        assert answer.json["error"]["code"] in ("not_found", "bad_request")

    def test_looking_at_it_is_not_recorded(self, served: Served, call: Call) -> None:
        client = call(served)
        for path in ("/_unbroken/", "/_unbroken/metrics", "/_unbroken/health", "/_unbroken"):
            client.ask("GET", path)
        client.ask("GET", "/_unbroken/nothing")
        assert [entry["path"] for entry in [served.entry(0), *served.entries[1:]]] == ["/_unbroken/nothing"]

    def test_with_a_token_only_health_is_for_everybody(self, serve: Serve, lab: Upstream, call: Call) -> None:
        served = serve(lab.url, token="let-me-in")
        assert call(served).ask("GET", "/_unbroken/health").json == {"status": "ok"}
        for path in (
            "/_unbroken/",
            "/_unbroken/metrics",
            "/_unbroken/feed",
            "/_unbroken/page.js",
            "/_unbroken/findings",
        ):
            answer = call(served).ask("GET", path)
            assert (answer.status, answer.code) == (401, "relay_token")
            assert answer.value("www-authenticate") == 'Basic realm="unbroken"'
        assert call(served).ask("GET", "/_unbroken/metrics", [("x-unbroken-token", "let-me-in")]).status == 200

    def test_other_origins_cannot_read_it(self, serve: Serve, lab: Upstream, call: Call) -> None:
        served = serve(lab.url, origins=frozenset({"https://evil.example"}))
        answer = call(served).ask("GET", "/_unbroken/metrics", [("origin", "https://evil.example")])
        assert answer.values("access-control-allow-origin") == []
        rebound = call(served).ask("GET", "/_unbroken/feed", host="evil.example")
        assert (rebound.status, rebound.code) == (421, "misdirected_request")


class TestFeed:
    def test_begins_with_everything(self, served: Served, watch: Watch, call: Call) -> None:
        call(served).ask_json(*CHAT.request())
        feed = watch(served)
        assert feed.head.value("content-type") == "text/event-stream"
        assert feed.head.value("cache-control") == "no-cache"
        hello = feed.next("hello")
        assert feed.heard[0].name == "hello"
        assert hello.keys() == {
            "version",
            "started",
            "now",
            "upstreams",
            "running",
            "live",
            "recent",
            "cuts",
            "advice",
            "totals",
            "store_problem",
        }
        assert (hello["version"], hello["upstreams"]) == ("test", ["lab"])
        assert (hello["running"], hello["live"], hello["cuts"], hello["advice"]) == (0, [], [], "")
        assert hello["totals"] == {"turns": 1, "answered": 1, "saved": 0, "cut": 0, "passed": 0}
        (turn,) = hello["recent"]
        assert turn.keys() == TURN_FIELDS
        assert [attempt.keys() for attempt in turn["attempts"]] == [ATTEMPT_FIELDS]
        assert turn["id"] == served.entry()["id"]
        assert hello["started"] <= turn["started"] <= hello["now"]

    def test_shows_a_turn_from_its_beginning_to_its_end(
        self, serve: Serve, watch: Watch, call: Call, stack: ExitStack
    ) -> None:
        faults = [Fault("rst", "after_role"), Fault("stall", "after_role", seconds=0.3)]
        upstream = stack.enter_context(Upstream(faults=faults))
        served = serve(upstream.url)
        feed = watch(served)
        feed.next("hello")
        client = call(served)
        CHAT.begin(client)
        live = feed.next("live", lambda told: told["live"] and len(told["live"][0]["attempts"]) == 2)
        assert live.keys() == {"now", "running", "live"}
        assert live["running"] == 1
        (turn,) = live["live"]
        assert turn.keys() == TURN_FIELDS
        assert (turn["outcome"], turn["upstream"], turn["dialect"]) == (None, "lab", "openai-chat")
        assert [attempt["failure"] for attempt in turn["attempts"]] == ["reset", None]
        answer = client.answer()

        ended = feed.next("ended")
        assert ended.keys() == {"now", "turn", "cuts", "advice", "totals"}
        assert ended["turn"].keys() == TURN_FIELDS
        assert ended["turn"]["id"] == turn["id"] == answer.value("x-unbroken-turn")
        assert (ended["turn"]["outcome"], ended["turn"]["bytes_out"]) == ("answered", len(answer.body))
        assert ended["totals"] == {"turns": 1, "answered": 1, "saved": 1, "cut": 0, "passed": 0}
        assert feed.next("live") == {"now": ended["now"], "running": 0, "live": []}  # and the lane goes away

    def test_tells_each_end_once_in_order(self, served: Served, watch: Watch, call: Call) -> None:
        client = call(served)
        client.ask_json(*CHAT.request())
        feeds = watch(served), watch(served)
        for feed in feeds:
            assert len(feed.next("hello")["recent"]) == 1
        names = [client.ask_json(*asked.request()).value("x-unbroken-turn") for asked in (CHAT, GEMINI) * 10]
        for feed in feeds:
            feed.next("ended", lambda told: told["turn"]["id"] == names[-1])
            assert [told["turn"]["id"] for told in feed.named("ended")] == names
        late = watch(served).next("hello")
        assert [turn["id"] for turn in late["recent"]] == [*reversed(names), served.entries[0]["id"]]

    def test_has_advice_once_cuts_cluster(
        self, served: Served, watch: Watch, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The silences are made up: it would take a second for each to be one."""
        cut = SilentCut(at=time.time(), silent=60.0, http_version="HTTP/2")
        monkeypatch.setattr(recorder, "silent_cuts", lambda attempts, since: [cut])
        feed = watch(served)
        assert feed.next("hello")["advice"] == ""
        client = call(served)
        said = []
        for _ in range(4):
            client.ask_json(*CHAT.request())
            ended = feed.next("ended")
            assert ended["cuts"] == [msgspec.to_builtins(cut)]
            said.append(ended["advice"])
        assert said[:2] == ["", ""]
        assert said[2].startswith("something on the way cuts idle connections after about 60 s")
        assert said[3] == said[2]
        hello = watch(served).next("hello")
        assert (hello["advice"], len(hello["cuts"])) == (said[3], 4)

    def test_shows_no_more_turns_than_anybody_can_watch(
        self,
        serve: Serve,
        thinking: Upstream,
        watch: Watch,
        begin: Callable[[Served], Caller],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(recorder, "LIVE", 2)
        served = serve(thinking.url)
        callers = [begin(served) for _ in range(4)]
        feed = watch(served)
        told = feed.next("live", lambda told: told["running"] == 4)
        assert len(told["live"]) == 2
        assert told["live"][0]["started"] <= told["live"][1]["started"]
        for caller in callers:
            caller.close()
        assert feed.next("live", lambda told: told["running"] == 0)["live"] == []

    def test_says_that_it_is_there_when_nothing_happens(
        self, served: Served, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(status_page, "KEEP_ALIVE", 0.05)
        feed = watch(served)
        feed.next("hello")
        began = time.monotonic()
        feed.next("")
        feed.next("")
        assert [told.name for told in feed.heard] == ["hello", "", ""]
        assert time.monotonic() - began >= 0.1

    def test_costs_nothing_once_nobody_watches(self, served: Served) -> None:
        gather, looks = served.relay.gather, threading.Semaphore(0)

        async def counted(seen: dict[str, int]) -> recorder.Snapshot:
            looks.release()
            return await gather(seen)

        served.relay.gather = counted
        before = served.tasks()
        watchers = [Caller(served.port) for _ in range(3)]
        for watcher in watchers:
            Feed(watcher).next("hello")
        assert served.tasks() > before
        watchers.pop().close()
        watchers.append(Caller(served.port))
        Feed(watchers[-1]).next("hello")
        for watcher in watchers:
            watcher.close()
        poll(lambda: served.tasks() == before)
        assert not served.relay._status_page._feeds
        while looks.acquire(blocking=False):
            pass
        assert not looks.acquire(timeout=5 * status_page.TICK)

    def test_says_what_is_wrong_with_the_store(self, served: Served, watch: Watch) -> None:
        feed = watch(served)
        assert feed.next("hello")["store_problem"] == ""
        served.relay.recorder.store_problem = "it is full"
        assert feed.next("store") == {"store_problem": "it is full"}

    def test_ends_at_once_when_the_relay_stops_and_running_turns_do_not(
        self, serve: Serve, watch: Watch, begin: Callable[[Served], Caller], stack: ExitStack
    ) -> None:
        upstream = stack.enter_context(Upstream(answer=ScriptedAnswer(think=0.5)))
        served = serve(upstream.url)
        feed = watch(served)
        feed.next("hello")
        caller = begin(served)
        feed.next("live")
        served.stop()
        assert feed.ended()
        assert served.relay.recorder.live
        assert caller.answer().whole
        began = time.monotonic()
        assert served.join() - began < 2

    def test_who_does_not_read_holds_up_nobody(
        self,
        serve: Serve,
        thinking: Upstream,
        watch: Watch,
        begin: Callable[[Served], Caller],
        call: Call,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(status_page, "TICK", 0.001)
        served = serve(thinking.url, grace=0.2)
        callers = [begin(served) for _ in range(10)]
        stuck, reading = watch(served, small=True), watch(served)
        poll(lambda: _write_paused(served))
        for caller in callers:
            caller.close()
        reading.next("live", lambda told: told["running"] == 0)
        assert len(reading.named("ended")) == 10
        assert call(served).ask("GET", "/_unbroken/health").status == 200
        assert stuck.heard == []

    def test_does_not_repeat_what_it_has_said(
        self, serve: Serve, thinking: Upstream, watch: Watch, begin: Callable[[Served], Caller]
    ) -> None:
        """While turns run something is said four times a second: that must not be the whole history."""
        served = serve(thinking.url)
        begin(served)
        for _ in range(recorder.RECENT):
            begin(served).close()
        poll(lambda: len(served.relay.recorder.recent) >= 50)
        feed = watch(served)
        feed.next("hello")
        told = feed.next("live")
        assert len(json.dumps(told)) < 2000 * told["running"]


def _write_paused(served: Served) -> bool:
    """Whether the relay waits for a client to read."""
    connections = served._server.server_state.connections
    return any(connection.flow.write_paused for connection in connections)


def test_metrics_are_those_of_this_relay(served: Served, call: Call) -> None:
    client = call(served)
    assert not any("turns_total" in name for name in series(client.ask("GET", "/_unbroken/metrics").body))
    client.ask_json(*CHAT.request())
    served.entry()
    found = series(client.ask("GET", "/_unbroken/metrics").body)
    assert found["unbroken_turns_total{dialect=openai-chat,outcome=answered,upstream=lab}"] == 1
