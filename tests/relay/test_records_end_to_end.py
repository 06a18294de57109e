"""What is recorded of each request, as its entry in the access log has it: every field, and never a key, a query or
content.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from relay.asked import CHAT, RESPONSES
from relay.downstream import SCOPE, Downstream
from relay.feeds import Feed
from relay.records import other, series
from relay.serving import Call, Caller, RunRelay, Serve, Served, ServeRaw, poll, settings_to
from unbroken.core.continuation.format import Style
from unbroken.core.failures import Phase
from unbroken.core.policy import Policy
from unbroken.lab import Continuation, Fault, ScriptedAnswer, Upstream
from unbroken.relay import status_page
from unbroken.relay.app import Relay
from unbroken.relay.settings import UpstreamSettings
from wire.servers import saying

QUICK = Policy(backoff_initial=0.01, backoff_max=0.02, retries=2)

ServeLab = Callable[..., tuple[Served, Upstream]]

PLAIN = {
    "method": "POST",
    "path": "/v1/chat/completions",
    "upstream": "lab",
    "dialect": "openai-chat",
    "status": 200,
    "outcome": "answered",
    "attempts": 1,
    "retries": 0,
    "replays": 0,
    "seams": [],
    "resumes": [],
    "unacknowledged": [],
    "lost": [],
    "heartbeats": 0,
    "detail": "",
}
"""The fields of an entry that do not tell times and lengths."""

MEASURED = {"time", "id", "elapsed", "first_output", "bytes_in", "bytes_out"}


@pytest.fixture
def serve_lab(serve: Serve, stack: Any) -> ServeLab:
    """A relay before an upstream: ``serve_lab(*faults, answer=..., **settings)``."""

    def start(
        *faults: Fault | None,
        answer: ScriptedAnswer | None = None,
        continuation: Continuation | None = None,
        style: Style | None = None,
        policy: Policy = QUICK,
        **settings: Any,
    ) -> tuple[Served, Upstream]:
        upstream = stack.enter_context(Upstream(faults=faults, answer=answer, continuation=continuation))
        return serve(
            {"lab": UpstreamSettings("lab", upstream.url, continuation=style)}, policy=policy, **settings
        ), upstream

    return start


def told(entry: dict[str, Any]) -> dict[str, Any]:
    """What an entry says besides times and lengths."""
    assert entry.keys() >= MEASURED
    return {name: value for name, value in entry.items() if name not in MEASURED}


class TestTurns:
    def test_an_answer(self, serve_lab: ServeLab, call: Call) -> None:
        served, upstream = serve_lab(None, answer=ScriptedAnswer(think=0.05))
        began = time.time()
        answer = call(served).ask_json(*CHAT.request())
        entry = served.entry()
        assert told(entry) == PLAIN
        assert entry["id"] == answer.value("x-unbroken-turn")
        assert entry["bytes_in"] == len(upstream.requests[0].body)
        assert entry["bytes_out"] == len(answer.body)
        assert 0.05 <= entry["first_output"] <= entry["elapsed"] < 5
        ended = datetime.datetime.fromisoformat(entry["time"]).timestamp()
        assert began - 0.01 <= ended <= time.time() + 0.01

    def test_a_replay(self, serve_lab: ServeLab, call: Call) -> None:
        served, _ = serve_lab(Fault("rst", "after_role"))
        assert call(served).ask_json(*CHAT.request()).whole
        assert told(served.entry()) == PLAIN | {"attempts": 2, "replays": 1, "lost": ["reset@prelude"]}

    def test_a_retry(self, serve_lab: ServeLab, call: Call) -> None:
        served, _ = serve_lab(Fault("status", "before_headers", status=429))
        assert call(served).ask_json(*RESPONSES.request()).whole
        call_ = {"path": "/v1/responses", "dialect": "openai-responses"}
        assert told(served.entry()) == PLAIN | call_ | {"attempts": 2, "retries": 1, "lost": ["busy@headers"]}

    def test_a_cut_after_output(self, serve_lab: ServeLab, call: Call) -> None:
        served, _ = serve_lab(Fault("rst", "after_token"))
        answer = call(served).ask_json(*CHAT.request())
        entry = served.entry()
        assert entry["detail"].startswith("the stream was cut after 0.")
        assert told(entry) == PLAIN | {"outcome": "cut", "lost": ["reset@output"], "detail": entry["detail"]}
        assert entry["bytes_out"] == len(answer.body)

    def test_an_answer_that_was_continued(self, serve_lab: ServeLab, call: Call) -> None:
        policy = dataclasses.replace(QUICK, after_output="continue")
        served, _ = serve_lab(
            Fault("clean_end", "after_characters", offset=7),
            continuation=Continuation("prefix"),
            style="prefix",
            policy=policy,
        )
        assert call(served).ask_json(*CHAT.request()).whole
        told_of = {"attempts": 2, "replays": 1, "lost": ["unfinished@output"], "seams": [7]}
        assert told(served.entry()) == PLAIN | told_of

    def test_a_turn_that_is_lost(self, serve_lab: ServeLab, call: Call) -> None:
        served, _ = serve_lab(*[Fault("rst", "before_headers")] * 4)
        answer = call(served).ask_json(*CHAT.request())
        assert answer.status == 502
        entry = served.entry()
        lost = {"status": 502, "outcome": "lost", "attempts": 4, "replays": 3, "lost": ["reset@headers"] * 4}
        assert told(entry) == PLAIN | lost | {"detail": answer.json["error"]["message"]}
        assert entry["first_output"] is None
        assert entry["bytes_out"] == len(answer.body)

    def test_a_refusal(self, serve_lab: ServeLab, call: Call) -> None:
        served, _ = serve_lab(Fault("status", "before_headers", status=400))
        answer = call(served).ask_json(*CHAT.request())
        entry = served.entry()
        assert told(entry) == PLAIN | {"status": 400, "outcome": "refused"}
        assert entry["first_output"] is None
        assert entry["bytes_out"] == len(answer.body)

    def test_a_refusal_for_which_it_was_too_late_tells_its_status_but_not_its_words(
        self, serve_lab: ServeLab, call: Call
    ) -> None:
        words = {"message": "what you asked for, namely CONTENT, is forbidden"}
        refusal = Fault("status", "before_headers", seconds=0.2, status=403, error=words)
        served, _ = serve_lab(refusal, heartbeat=0.02, early_heartbeat=True)
        answer = call(served).ask_json(*CHAT.request())
        assert b"CONTENT" in answer.body
        entry = served.entry()
        assert entry["heartbeats"] > 1
        late = {
            "outcome": "refused",
            "heartbeats": entry["heartbeats"],
            "detail": "HTTP 403, too late for a status",
        }
        assert told(entry) == PLAIN | late

    def test_a_client_that_leaves(self, serve_lab: ServeLab, call: Call) -> None:
        served, _ = serve_lab(Fault("stall", "after_headers"))
        leaving = call(served)
        CHAT.begin(leaving)
        poll(lambda: [turn.driver.phase for turn in served.relay.recorder.live.values()] == [Phase.PRELUDE])
        leaving.close()
        entry = served.entry()
        assert told(entry) == PLAIN | {
            "status": None,
            "outcome": "left",
            "lost": ["cancelled@prelude"],
        }
        assert (entry["bytes_out"], entry["first_output"]) == (0, None)

    def test_what_the_relay_was_stopped_in(self, serve_lab: ServeLab, call: Call) -> None:
        served, _ = serve_lab(*[Fault("stall", "after_headers")] * 2, grace=0.05)
        clients = call(served), call(served)
        CHAT.begin(clients[0])
        clients[1].begin("GET", "/v1/models")
        clients[1].head()
        poll(lambda: served.relay.recorder.live)
        served.close()
        assert sorted(entry["outcome"] for entry in served.entries) == ["stopped", "stopped"]
        turn, passed = sorted(served.entries, key=lambda entry: entry["path"])
        assert (turn["status"], turn["detail"]) == (503, "the relay was stopped")
        assert (passed["status"], passed["detail"]) == (200, "the relay was stopped")


class TestOthers:
    def test_a_request_that_is_passed(self, served: Served, call: Call, lab: Upstream) -> None:
        answer = call(served).ask("GET", "/lab/v1/models?after=x")
        entry = served.entry()
        passed = {"method": "GET", "path": "/lab/v1/models", "dialect": None, "outcome": "passed", "attempts": 0}
        assert told(entry) == PLAIN | passed
        assert (entry["bytes_in"], entry["bytes_out"], entry["first_output"]) == (0, len(answer.body), None)
        assert served.relay.recorder.totals.passed == 1

    def test_a_rejection(self, served: Served, call: Call) -> None:
        answer = call(served).ask("DELETE", "/nowhere?q")
        assert answer.status == 404
        entry = served.entry()
        assert told(entry) == PLAIN | {
            "method": "DELETE",
            "path": "/nowhere",
            "upstream": None,
            "dialect": None,
            "status": 404,
            "outcome": "rejected",
            "attempts": 0,
            "detail": answer.json["error"]["message"],
        }
        assert entry["bytes_out"] == len(answer.body)

    @pytest.mark.parametrize("path", ["/v1/files", "/v1/chat/completions"])
    def test_a_body_that_does_not_come_is_recorded_once(
        self, serve: Serve, lab: Upstream, call: Call, path: str
    ) -> None:
        served = serve(lab.url, receive_timeout=0.1)
        client = call(served)
        client.begin("POST", path, [("content-length", "10")], b"12345")
        assert client.answer().status == 408
        client = call(served)
        client.ask("GET", "/v1/models")
        assert [entry["outcome"] for entry in (served.entry(0), served.entry(1))] == ["rejected", "passed"]
        assert (served.entries[0]["status"], served.entries[0]["bytes_in"]) == (408, 5)

    @pytest.mark.parametrize("path", ["/v1/files", "/v1/chat/completions"])
    def test_a_client_that_leaves_before_its_body_is_whole(self, served: Served, call: Call, path: str) -> None:
        client = call(served)
        client.begin("POST", path, [("content-length", "10")], b"12345")
        client.close()
        assert (served.entry()["outcome"], served.entry()["status"]) == ("left", None)

    def test_a_request_that_is_passed_and_cut(self, serve: Serve, serve_raw: ServeRaw, call: Call) -> None:
        raw = serve_raw(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"))
        served = serve(raw.url)
        assert not call(served).ask("GET", "/v1/files/1").whole
        entry = served.entry()
        assert (entry["outcome"], entry["status"], entry["bytes_out"]) == ("cut", 200, 5)
        assert entry["detail"]

    def test_an_upstream_that_nobody_answers_for(self, serve: Serve, call: Call) -> None:
        served = serve("http://127.0.0.1:1")
        answer = call(served).ask("GET", "/v1/models")
        entry = served.entry()
        assert (entry["outcome"], entry["status"], entry["upstream"]) == ("unreachable", 502, "lab")
        assert entry["detail"] == answer.json["error"]["message"]


def test_there_is_an_entry_for_each_request_whatever_connection_it_comes_by(serve_lab: ServeLab, call: Call) -> None:
    served, upstream = serve_lab()
    clients = [call(served) for _ in range(5)]
    for _ in range(4):
        for client in clients:
            CHAT.begin(client)
        for client in clients:
            assert client.answer().whole
    served.entry(19)
    assert len({entry["id"] for entry in served.entries}) == len(served.entries) == len(upstream.requests) == 20


def test_a_relay_without_a_log_counts_all_the_same() -> None:
    relay = Relay(settings_to("http://127.0.0.1:1"))

    async def scrape() -> Downstream:
        client = Downstream()
        scope = {**SCOPE, "method": "GET", "path": "/_unbroken/metrics", "headers": [(b"host", b"localhost")]}
        await relay(scope, client.receive, client.send)
        return client

    assert series(anyio.run(scrape).body)["unbroken_turns_running"] == 0
    relay.recorder.end(other())
    assert (relay.recorder.totals.turns, relay.recorder.totals.passed) == (0, 1)
    assert series(anyio.run(scrape).body)["unbroken_requests_total{outcome=passed}"] == 1


# Secrets

KEY = "sk-SECRET-0123456789"
CONTENT = "SECRET-CONTENT-of-the-prompt"
SECRET = "SECRET"

WORDS = {"message": f"Incorrect API key {KEY}: you said {CONTENT}", "type": "server_error", "code": None}
RAW = f"data: {CONTENT} {KEY}\n\n".encode()

LEAKY = [
    Fault("status", "before_headers", status=401, error=WORDS),
    Fault("status", "before_headers", status=503, error=WORDS),
    Fault("status", "before_headers", status=500, body=f"<html>{CONTENT} {KEY}".encode()),
    Fault("status", "before_headers", status=302, headers={"location": f"https://x.example/?key={KEY}"}),
    Fault("status", "before_headers", status=200, headers={"content-type": "text/html"}, body=CONTENT.encode()),
    Fault("error_event", "after_role", error=WORDS),
    Fault("error_event", "after_token", error=WORDS),
    Fault("error_event", "after_role", error=WORDS | {"type": "invalid_request_error"}),
    Fault("raw", "after_headers", body=RAW),
    Fault("raw", "after_token", body=RAW),
    Fault("raw", "after_headers", body=b'data: {"choices": "' + CONTENT.encode() + b'"}\n\n'),
    Fault("bad_chunk", "after_role"),
    Fault("truncated_chunk", "after_token"),
    Fault("rst", "after_role"),
    None,
]

HEADERS = [
    ("authorization", f"Bearer {KEY}"),
    ("x-api-key", KEY),
    ("api-key", KEY),
    ("x-goog-api-key", KEY),
    ("proxy-authorization", f"Basic {KEY}"),
    ("cookie", f"session={KEY}"),
    ("x-unbroken-token", KEY),
    ("user-agent", KEY),
    ("referer", f"https://x.example/?q={KEY}"),
    ("x-custom", KEY),
]
QUERY = f"key={KEY}&api_key={KEY}&q={CONTENT}"
BODY = json.dumps(
    {
        "model": "lab",
        "stream": True,
        "user": KEY,
        "messages": [{"role": "user", "content": CONTENT}],
        "metadata": {"key": KEY},
    }
).encode()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_page, "TICK", 0.02)


@pytest.fixture
def leaky() -> Iterator[Upstream]:
    """Quotes keys and content in every way that it has, to each of two askers."""
    with Upstream(faults=[*LEAKY, *LEAKY], answer=ScriptedAnswer(text=f"You said {CONTENT}")) as upstream:
        yield upstream


def ask_everything(port: int) -> None:
    """Ask in every way that a key or content can be sent; whatever comes of it is the client's."""
    targets = ["/lab/v1/chat/completions", "/lab/v1/embeddings", "/nowhere", "/_unbroken/nothing", "/dead/v1/models"]
    targets += ["/dead/v1/chat/completions"]
    for target in targets * 3 + targets[:2] * len(LEAKY):
        with Caller(port) as client:
            client.ask("POST", f"{target}?{QUERY}", HEADERS, BODY)
    with Caller(port) as client:
        client.begin("POST", f"/lab/v1/chat/completions?{QUERY}", HEADERS, BODY)
        client.head()


class TestNothingLeaks:
    def test_into_entries_metrics_and_the_feed(
        self, serve: Serve, leaky: Upstream, call: Call, quick: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        dead = UpstreamSettings("dead", "http://127.0.0.1:1", proxy=f"http://user:{KEY}@127.0.0.1:1")
        policy = Policy(retries=1, replays=1, backoff_initial=0.01, backoff_max=0.02)
        served = serve({"lab": leaky.url, "dead": dead}, policy=policy, heartbeat=0.02, early_heartbeat=True)
        feed = Feed(call(served))
        feed.next("hello")
        ask_everything(served.port)
        poll(lambda: not served.relay.recorder.live)
        last = served.relay.recorder.recent[0].id
        feed.next("ended", lambda told: told["turn"]["id"] == last)
        outcomes = {entry["outcome"] for entry in served.entries}
        assert outcomes >= {"answered", "refused", "failed", "malformed", "unexpected", "passed", "unreachable"}
        assert [entry for entry in served.entries if SECRET in json.dumps(entry)] == []
        assert SECRET not in feed.raw.decode()
        assert SECRET not in json.dumps(Feed(call(served)).next("hello"))
        assert SECRET not in call(served).ask("GET", "/_unbroken/metrics").body.decode()
        assert SECRET not in caplog.text

    def test_into_the_lines_of_the_program(self, leaky: Upstream, run_relay: RunRelay) -> None:
        program, port = run_relay("--upstream", f"lab={leaky.url}", "--early-heartbeat", "--heartbeat", "0.02")
        ask_everything(port)
        program.send(signal.SIGTERM)
        said = program.err.wait_for_end().decode()
        assert SECRET not in said
        assert "↻ refused after" in said
        assert said.count("POST /lab/v1/embeddings · ") == len(LEAKY) + 3
