"""The application: where a request goes, what it is refused for, and that one request's trouble is nobody else's."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
import trustme

from relay.asked import CHAT, DIALECTS, GEMINI, Asked
from relay.downstream import SCOPE, Downstream
from relay.serving import Call, Caller, Serve, Served, ServeRaw, poll, settings_to
from unbroken.core.policy import Policy
from unbroken.errors import UsageError
from unbroken.lab import Fault, Upstream
from unbroken.relay import Relay
from unbroken.relay import app as module
from unbroken.relay.passthrough import Passthrough
from unbroken.relay.settings import UpstreamSettings
from unbroken.relay.turns import RelayedTurn
from unbroken.wire.proxies import GivenProxy
from wire.servers import RawServer, silence

BODY = json.dumps(CHAT.request()[1]).encode()


class TestWhereItGoes:
    @pytest.mark.parametrize("asked", DIALECTS, ids=str)
    @pytest.mark.parametrize("streaming", [True, False], ids=["stream", "whole"])
    def test_a_generation_call_is_a_turn(
        self, served: Served, lab: Upstream, call: Call, asked: Asked, streaming: bool
    ) -> None:
        answer = call(served).ask_json(*asked.request(streaming=streaming))
        assert (answer.status, answer.whole) == (200, True)
        assert answer.body == lab.requests[0].sent
        assert (served.entry()["dialect"], served.entry()["outcome"]) == (asked.name, "answered")

    @pytest.mark.parametrize(
        "body",
        [b"", b"no JSON", b"[]", b'\xff\xfe{"model": 1}', b"x" * 300_000],
        ids=["nothing", "no JSON", "no object", "no UTF-8", "long"],
    )
    def test_what_is_no_call_is_passed_with_its_body(
        self, served: Served, lab: Upstream, call: Call, body: bytes
    ) -> None:
        answer = call(served).ask("POST", "/lab/v1/chat/completions?a=b", [("content-type", "text/x")], body)
        (request,) = lab.requests
        assert (request.method, request.target, request.body) == ("POST", "/v1/chat/completions?a=b", body)
        assert request.header("content-type") == "text/x"
        assert answer.body == request.sent
        assert (served.entry()["outcome"], served.entry()["bytes_in"]) == ("passed", len(body))

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
    def test_another_method_is_passed_where_calls_are_made(
        self, served: Served, lab: Upstream, call: Call, method: str
    ) -> None:
        call(served).ask(method, "/v1/chat/completions", body=BODY)
        assert (lab.requests[0].method, lab.requests[0].body) == (method, BODY)
        assert served.entry()["outcome"] == "passed"

    def test_each_upstream_has_its_own_proxy_and_authorities(
        self,
        serve: Serve,
        call: Call,
        stack: ExitStack,
        server_tls: ssl.SSLContext,
        authority: trustme.CA,
        tmp_path: Path,
    ) -> None:
        authority.cert_pem.write_to_path(ca_file := tmp_path / "ca.pem")
        secure = stack.enter_context(Upstream(ssl_context=server_tls))
        upstreams = {
            "known": UpstreamSettings("known", secure.url, ca_file=str(ca_file), proxy=""),
            "unknown": UpstreamSettings("unknown", secure.url, proxy=""),
            "proxied": UpstreamSettings("proxied", secure.url, ca_file=str(ca_file)),
        }
        served = serve(upstreams, proxy="http://127.0.0.1:1")
        answers = {name: call(served).ask("GET", f"/{name}/v1/models") for name in upstreams}
        assert answers["known"].status == 200
        assert (answers["unknown"].status, answers["unknown"].code) == (502, "certificate")
        assert (answers["proxied"].status, answers["proxied"].code) == (502, "proxy_unreachable")

    @pytest.mark.parametrize("kind", ["turn", "passed through"])
    @pytest.mark.parametrize(
        ("scheme", "answer", "said"),
        [
            ("http", b"", "accepted, then closed: wrong scheme, or it cannot reach model.test:443"),
            ("http", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "cannot reach model.test:443: 502 Bad Gateway"),
            ("http", b"HTTP/1.1 403 Forbidden\r\n\r\n", "refuses to connect to model.test:443: 403 Forbidden"),
            ("http", b"SSH-2.0-OpenSSH_9.2\r\n", "speaks another protocol: it answered with an SSH server's greeting"),
            ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks another protocol: it answered with HTTP: write"),
            ("socks5h", b"<html>", "speaks another protocol: it answered with an HTML page"),
            ("socks5h", b"\5\0\5\4", "cannot reach model.test:443: host unreachable"),
        ],
    )
    def test_a_client_is_told_which_proxy_failed(
        self, serve: Serve, call: Call, stack: ExitStack, scheme: str, answer: bytes, said: str, kind: str
    ) -> None:
        def script(sock: socket.socket) -> None:
            sock.recv(65536)
            sock.sendall(answer)
            if answer:
                silence(sock)

        server = stack.enter_context(RawServer(script))
        proxy = GivenProxy(f"{scheme}://me:s3cret@127.0.0.1:{server.port}", "[upstreams.lab]")
        upstream = UpstreamSettings("lab", "https://model.test/v1", proxy=proxy)
        served = serve({"lab": upstream}, policy=Policy(give_up_after=0))
        ours = call(served)
        told = ours.ask_json(*CHAT.request()) if kind == "turn" else ours.ask("GET", "/lab/v1/models")
        assert told.status == 502
        named = f"the proxy at {scheme}://127.0.0.1:{server.port} ([upstreams.lab]) {said}"
        assert named in told.json["error"]["message"]
        assert named in served.entry()["detail"]

    def test_concurrent_turns_do_not_mix(self, served: Served, lab: Upstream, call: Call) -> None:
        """The upstream numbers its answers, and knows what each of them was asked."""

        def ask(number: int) -> None:
            asked = DIALECTS[number % len(DIALECTS)]
            path, body = asked.request(user=f"client-{number}")
            answer = call(served).ask_json(path, body)
            (request,) = [known for known in lab.requests if json.loads(known.body) == body]
            assert (answer.body, answer.whole) == (request.sent, True)

        with ThreadPoolExecutor(25) as pool:
            list(pool.map(ask, range(150)))
        assert len({request.sent for request in lab.requests}) == 150
        assert lab.wait_for(lambda: not served.relay.recorder.live, 5)  # a client has the end before the turn is closed

    def test_connections_to_upstreams_end_with_it(self, served: Served, lab: Upstream, call: Call) -> None:
        call(served).ask_json(*CHAT.request())
        assert lab.open_connections == 1  # kept, to be used again
        served.close()
        assert lab.wait_for(lambda: lab.open_connections == 0, 5)


class TestRejections:
    @pytest.mark.parametrize(
        ("settings", "request_", "status", "code", "detail"),
        [
            ({}, ("POST", "/nowhere/v1/x"), 404, "no_such_route", "there are /lab/...; /v1/... needs a default"),
            ({}, ("POST", "/v1/chat/completions"), 404, "no_such_route", "/v1/... needs a default upstream"),
            ({}, ("GET", "/lab/../x"), 400, "bad_request", ". or .."),
            ({"token": "t"}, ("POST", "/lab/v1/chat/completions"), 401, "relay_token", "demands its token"),
            (
                {"token": "t", "inject_key": True},
                ("POST", "/keyless/v1/chat/completions", [("x-unbroken-token", "t")]),
                401,
                "no_key",
                "the relay was started without KEYLESS_KEY",
            ),
            ({"max_body": 10}, ("POST", "/lab/v1/chat/completions"), 413, "request_too_large", "over 10 bytes"),
        ],
        ids=["no route", "no default", "dots", "no token", "no key", "too large"],
    )
    def test_say_why_and_are_recorded(
        self,
        serve: Serve,
        lab: Upstream,
        call: Call,
        settings: dict[str, Any],
        request_: tuple[str, ...],
        status: int,
        code: str,
        detail: str,
    ) -> None:
        upstreams = {
            "lab": UpstreamSettings("lab", lab.url),
            "keyless": UpstreamSettings("keyless", lab.url, key_env="KEYLESS_KEY"),
        }
        if not settings.get("inject_key"):
            del upstreams["keyless"]
        served = serve(upstreams, default="", **settings)
        answer = call(served).ask(*request_, body=BODY)
        assert (answer.status, answer.code) == (status, code)
        assert answer.value("connection") == "close"
        entry = served.entry()
        assert (entry["outcome"], entry["status"], entry["bytes_out"]) == ("rejected", status, len(answer.body))
        assert detail in entry["detail"] == answer.json["error"]["message"]
        assert len(served.entries) == 1
        assert lab.requests == []

    @pytest.mark.parametrize("asked", DIALECTS, ids=str)
    def test_speak_as_the_dialect_does(self, serve: Serve, lab: Upstream, call: Call, asked: Asked) -> None:
        served = serve(lab.url, max_body=1)
        answer = call(served).ask_json(*asked.request())
        assert answer.status == 413
        (failed,) = [asked.dialect.read_error(413, answer.body)]
        assert "over 1 bytes" in failed.message

    def test_a_page_of_an_allowed_origin_may_read_them(self, serve: Serve, lab: Upstream, call: Call) -> None:
        served = serve(lab.url, origins=frozenset({"https://page.example"}))
        answer = call(served).ask("GET", "/nowhere", [("origin", "https://page.example")])
        assert answer.status == 404
        assert answer.value("access-control-allow-origin") == "https://page.example"

    def test_a_preflight_is_answered_here(self, serve: Serve, lab: Upstream, call: Call) -> None:
        served = serve(lab.url, origins=frozenset({"https://page.example"}))
        asked = [("origin", "https://page.example"), ("access-control-request-method", "POST")]
        assert call(served).ask("OPTIONS", "/v1/chat/completions", asked).status == 204
        assert lab.requests == []

    def test_of_turns_over_the_limit_while_the_rest_goes_on(self, serve: Serve, stack: ExitStack, call: Call) -> None:
        upstream = stack.enter_context(Upstream(faults=[Fault("stall", "after_headers")] * 2))
        served = serve(upstream.url, max_turns=2)
        clients = [call(served), call(served)]
        for client in clients:
            CHAT.begin(client)
        poll(lambda: len(served.relay.recorder.live) == 2)
        refused = call(served).ask_json(*GEMINI.request())
        assert (refused.status, refused.value("retry-after")) == (503, "1")
        assert refused.json["error"]["message"] == "2 turns run already (--max-turns)"
        assert call(served).ask("GET", "/v1/models").status == 200  # which is no turn
        clients[0].close()
        poll(lambda: len(served.relay.recorder.live) == 1)
        assert call(served).ask_json(*CHAT.request()).status == 200

    def test_of_a_request_that_comes_back(self, serve: Serve, lab: Upstream, call: Call) -> None:
        served = serve({"lab": lab.url, "loop": lab.url})
        upstreams: Any = served.settings.upstreams
        upstreams["loop"] = UpstreamSettings("loop", f"{served.origin}/loop")
        for method in ("POST", "GET"):
            answer = call(served).ask(method, "/loop/v1/chat/completions", body=BODY)
            assert (answer.status, answer.code) == (508, "loop")
            assert answer.value("x-should-retry") == "false"  # or the relay would try it eleven times
        assert [(entry["outcome"], entry["status"]) for entry in served.entries if entry["outcome"] == "rejected"] == [
            ("rejected", 508)
        ] * 2

    def test_not_of_a_request_that_came_through_others(self, served: Served, lab: Upstream, call: Call) -> None:
        vias = [("via", "1.1 unbroken-00000000"), ("via", "1.0 fred, 1.1 proxy.example")]
        assert call(served).ask("POST", "/v1/chat/completions", vias, BODY).status == 200
        passed_on = [value for name, value in lab.requests[0].headers if name == "via"]
        assert passed_on[:2] == [value for _, value in vias]
        assert len(passed_on) == 3
        again = call(served).ask("POST", "/v1/chat/completions", [("via", ", ".join(passed_on))], BODY)
        assert again.status == 508


def explode(*args: Any) -> Any:
    raise RuntimeError("a defect of our own")


class TestDefects:
    """What goes wrong in the relay itself."""

    @pytest.mark.parametrize(
        ("where", "method", "request_"),
        [
            (RelayedTurn, "run", ("POST", "/v1/chat/completions")),
            (Passthrough, "run", ("GET", "/v1/models")),
            (Relay, "_route", ("POST", "/v1/chat/completions")),
            (module, "recognise", ("POST", "/v1/chat/completions")),
        ],
        ids=["turn", "passthrough", "route", "dialect"],
    )
    def test_are_one_clean_500_and_in_the_log(
        self,
        served: Served,
        call: Call,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        where: Any,
        method: str,
        request_: tuple[str, str],
    ) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(where, method, explode)
            client = call(served)
            answer = client.ask(*request_, body=BODY)
        assert (answer.status, answer.body, answer.whole) == (500, b"Internal Server Error", True)
        assert client.ended()
        (logged,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert logged.exc_info
        assert "a defect of our own" in caplog.text
        assert BODY.decode() not in caplog.text
        assert not served.relay.recorder.live
        assert call(served).ask_json(*CHAT.request()).whole  # and the relay goes on

    def test_after_the_beginning_of_an_answer_break_it_off(
        self, served: Served, call: Call, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("unbroken.relay.reply.Reply.end", explode)
        answer = call(served).ask_json(*CHAT.request())
        assert (answer.status, answer.whole) == (200, False)
        assert "a defect of our own" in caplog.text
        assert not served.relay.recorder.live

    def test_a_client_that_goes_away_is_none(
        self, served: Served, call: Call, lab: Upstream, caplog: pytest.LogCaptureFixture
    ) -> None:
        for data in (b"", b"{", BODY):
            client = call(served)
            client.begin("POST", "/v1/chat/completions", [("content-length", str(len(BODY)))], data)
            client.close()
        assert {served.entry(number)["outcome"] for number in range(3)} <= {"left", "answered"}
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []


class TestAsApplication:
    def test_speaks_no_websocket(self) -> None:
        relay = Relay(settings_to("http://127.0.0.1:1"))
        with pytest.raises(UsageError, match="websocket"):
            anyio.run(relay, {"type": "websocket"}, explode, explode)

    def test_serves_without_a_raw_path(self) -> None:
        """Which the specification calls optional."""

        async def ask() -> Downstream:
            client = Downstream()
            scope = {**SCOPE, "method": "GET", "path": "/_unbroken/health", "headers": [(b"Host", b"localhost")]}
            await Relay(settings_to("http://127.0.0.1:1"))(scope, client.receive, client.send)
            return client

        client = anyio.run(ask)
        assert (client.status, client.body, client.whole) == (200, b'{"status": "ok"}', True)

    def test_lives_from_startup_to_shutdown_and_says_so_when_it_is_true(self) -> None:
        """Whoever hears that it is over ends the event loop."""
        told = iter(["startup", "shutdown"])
        done: list[str] = []

        async def receive() -> dict[str, Any]:
            await anyio.sleep(0)
            return {"type": f"lifespan.{next(told)}"}

        async def send(message: Any) -> None:
            done.append(message["type"])

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            done.append("entered")
            yield
            await anyio.sleep(0)
            done.append("left")

        class Wire:
            async def aclose(self) -> None:
                await anyio.sleep(0)
                done.append("closed")

        relay = Relay(settings_to("http://127.0.0.1:1"))
        relay.lifespan = lifespan
        relay._wires["lab"] = cast(Any, Wire())
        anyio.run(relay, {"type": "lifespan"}, receive, send)
        assert done == ["entered", "lifespan.startup.complete", "left", "closed", "lifespan.shutdown.complete"]


def test_clients_over_the_limit_are_turned_away_not_queued(serve: Serve, serve_raw: ServeRaw, stack: ExitStack) -> None:
    """A turn that may not run costs no connection to the upstream."""
    raw = serve_raw(silence)
    served = serve(raw.url, max_turns=1)
    first = stack.enter_context(Caller(served.port))
    CHAT.begin(first)
    poll(lambda: raw.connections == 1)
    statuses: list[int] = []
    for _ in range(30):
        with Caller(served.port) as client:
            statuses.append(client.ask_json(*CHAT.request()).status)
    assert statuses == [503] * 30
    assert raw.connections == 1
