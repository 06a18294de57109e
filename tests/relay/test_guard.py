"""Who is let in, and what is refused because it could mean two things."""

from __future__ import annotations

import base64
import hmac

import pytest

from relay.serving import Call, Fields, Received, Serve, Served, poll
from unbroken.lab import Upstream
from unbroken.relay.client_request import ClientRequest
from unbroken.relay.guard import cross_origin, preflight, without_token
from unbroken.relay.settings import Settings, UpstreamSettings

TOKEN = "open-sesame"
SECRET = "sk-of-the-relay"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def _nothing() -> dict:
    raise AssertionError("nothing was to be read")


def incoming(method: str = "GET", path: str = "/v1/models", query: str = "", **headers: str) -> ClientRequest:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"method": method, "path": path, "query_string": query.encode(), "headers": fields, "http_version": "1.1"}
    return ClientRequest(scope, _nothing, timeout=1)


class TestHost:
    """What a page of another site could not have a browser send (DNS rebinding)."""

    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "127.0.0.1:8765",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "api.localhost",
            "[::1]",
            "[::1]:8765",
        ],
    )
    def test_this_machines_own(self, served: Served, call: Call, host: str) -> None:
        assert call(served).ask("GET", "/v1/models", host=host).status == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.test", "evil.test:8765", "", "127.0.0.1.evil.test", "localhost.evil.test", "192.168.0.1", "0.0.0.0",
         "[::]", "127.0.0.1, evil.test", "evil.test@127.0.0.1", "::1"],
    )  # fmt: skip
    def test_any_other_is_misdirected(self, served: Served, lab: Upstream, call: Call, host: str) -> None:
        for target in ("/v1/models", "/_unbroken/health", "/_unbroken/", "/nowhere"):
            answer = call(served).ask("GET", target, host=host)
            assert (answer.status, answer.code) == (421, "misdirected_request")
        assert not lab.requests

    def test_names_can_be_allowed(self, serve: Serve, lab: Upstream, call: Call) -> None:
        relay = serve(lab.url, hosts=frozenset({"relay.lan"}))
        assert call(relay).ask("GET", "/v1/models", host="Relay.LAN:8765").status == 200
        assert call(relay).ask("GET", "/v1/models", host="127.0.0.1").status == 200
        assert call(relay).ask("GET", "/v1/models", host="other.lan").status == 421

    def test_or_all_of_them(self, serve: Serve, lab: Upstream, call: Call) -> None:
        assert call(serve(lab.url, hosts=frozenset({"*"}))).ask("GET", "/v1/models", host="any.test").status == 200

    @pytest.mark.parametrize("host", [None, "twice"])
    def test_there_is_exactly_one(self, served: Served, call: Call, host: str | None) -> None:
        fields = [("host", "127.0.0.1"), ("Host", "127.0.0.1")] if host else []
        answer = call(served).ask("GET", "/v1/models", fields, host=None)
        assert (answer.status, answer.code) == (400, "bad_request")

    def test_a_whole_url_is_taken_for_what_it_says(self, served: Served, lab: Upstream, call: Call) -> None:
        assert call(served).ask("GET", "http://127.0.0.1/v1/models?a=b").status == 200
        assert call(served).ask("GET", "http://LocalHost:1/v1/models", host="localhost:1").status == 200
        assert [request.target for request in lab.requests] == ["/v1/models?a=b", "/v1/models"]

    def test_the_relay_is_no_forward_proxy(self, served: Served, lab: Upstream, call: Call) -> None:
        url = f"{lab.url}/models"
        assert call(served).ask("GET", "http://evil.test/v1/models", host="evil.test").status == 421
        assert call(served).ask("GET", url, host=f"127.0.0.1:{lab.port}").status == 200  # by the path, not by the host
        assert call(served).ask("CONNECT", "127.0.0.1:443").status == 501
        assert len(lab.requests) == 1

    def test_a_url_whose_host_is_another_one_is_ambiguous(self, served: Served, lab: Upstream, call: Call) -> None:
        answer = call(served).ask("GET", "http://evil.test/v1/models", host="127.0.0.1")
        assert (answer.status, answer.code) == (400, "bad_request")
        assert not lab.requests


class TestVersions:
    @pytest.mark.parametrize("version", ["0.9", "1.0", "2.0"])
    def test_only_1_1_is_spoken(self, served: Served, call: Call, version: str) -> None:
        client = call(served)
        client.send(f"GET /v1/models HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())
        answer = client.answer()
        assert (answer.status, answer.code, answer.value("connection")) == (505, "http_version", "close")

    def test_no_websocket_but_http_instead(self, served: Served, lab: Upstream, call: Call) -> None:
        """Codex asks so first, and goes on over HTTP when it hears this status."""
        fields = [("Connection", "Upgrade"), ("Upgrade", "WebSocket"), ("Sec-WebSocket-Version", "13")]
        answer = call(served).ask("GET", "/v1/responses", fields)
        assert (answer.status, answer.code, answer.value("upgrade")) == (426, "no_websocket", "HTTP/1.1")
        assert not lab.requests

    @pytest.mark.parametrize("body", [b"", b"{}"])
    def test_any_other_upgrade_is_passed_by(self, served: Served, lab: Upstream, call: Call, body: bytes) -> None:
        """Java's client offers h2c with each first request, whose body may come later."""
        client, before = call(served), served.tasks()
        offer = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQCAAAA")]
        client.begin("PUT", "/v1/files", [*offer, ("Content-Length", str(len(body)))])
        if body:
            poll(lambda: served.tasks() > before)
            client.send(body)
        assert client.answer().value("connection") == "close"
        (request,) = lab.requests
        assert request.body == body
        assert {request.header(name) for name in ("connection", "upgrade", "http2-settings")} == {None}

    @pytest.mark.parametrize("coding", ["gzip, chunked", "gzip,chunked", "x, chunked"])
    def test_a_coding_that_would_get_lost_is_refused(
        self, served: Served, lab: Upstream, call: Call, coding: str
    ) -> None:
        answer = call(served).ask("POST", "/v1/x", [("Transfer-Encoding", coding)], b"2\r\n{}\r\n0\r\n\r\n")
        assert (answer.status, answer.code) == (501, "transfer_coding")
        assert not lab.requests


SHOWN: dict[str, Fields] = {
    "a header of its own": [("X-Unbroken-Token", TOKEN)],
    "OpenAI's": [("Authorization", f"Bearer {TOKEN}")],
    "OpenAI's in another case": [("authorization", f"bEARER  {TOKEN} ")],
    "as it is": [("Authorization", TOKEN)],
    "Anthropic's": [("x-api-key", TOKEN)],
    "Azure's": [("api-key", TOKEN)],
    "Google's": [("x-goog-api-key", TOKEN)],
    "besides another": [("x-api-key", "other"), ("Authorization", f"Bearer {TOKEN}")],
}

NOT_SHOWN: dict[str, Fields] = {
    "nothing": [],
    "another": [("X-Unbroken-Token", "open-says-me")],
    "part of it": [("X-Unbroken-Token", TOKEN[:-1])],
    "more than it": [("Authorization", f"Bearer {TOKEN}x")],
    "nothing at all": [("Authorization", "Bearer "), ("x-api-key", "")],
    "no Basic": [("Authorization", "Basic !!!")],
    "Basic without a password": [("Authorization", "Basic " + base64.b64encode(TOKEN.encode()).decode())],
    "as a user": [("Authorization", basic(TOKEN, ""))],
    "a browser's, which it sends again for any page": [("Authorization", basic("anyone", TOKEN))],
    "a cookie": [("Cookie", f"token={TOKEN}")],
}


class TestToken:
    @pytest.fixture
    def guarded(self, serve: Serve, lab: Upstream) -> Served:
        """A relay as it is beyond the loopback: it demands a token, and forwards its clients' own keys."""
        return serve(lab.url, token=TOKEN)

    @pytest.fixture
    def injecting(self, serve: Serve, lab: Upstream) -> Served:
        return serve(
            {"lab": UpstreamSettings("lab", lab.url, key=SECRET, key_env="LAB_KEY")}, token=TOKEN, inject_key=True
        )

    @pytest.mark.parametrize("how", SHOWN)
    def test_where_keys_are_injected_it_may_stand_in_the_place_of_the_key(
        self, injecting: Served, lab: Upstream, call: Call, how: str
    ) -> None:
        assert call(injecting).ask("GET", "/v1/models", SHOWN[how]).status == 200
        (request,) = lab.requests
        assert request.header("authorization") == f"Bearer {SECRET}"
        assert TOKEN not in str(request)

    @pytest.mark.parametrize(
        "query", [f"key={TOKEN}", f"a=%20b&key={TOKEN}&a=c+d&&e", f"%6bey={TOKEN}", f"k%65y={TOKEN}&key=x"]
    )
    def test_or_where_googles_clients_put_theirs(
        self, injecting: Served, lab: Upstream, call: Call, query: str
    ) -> None:
        assert call(injecting).ask("GET", f"/v1/models?{query}").status == 200
        (request,) = lab.requests
        assert request.target in ("/v1/models", "/v1/models?a=%20b&a=c+d&&e")

    @pytest.mark.parametrize("how", NOT_SHOWN)
    def test_whoever_does_not_show_it_stays_outside(
        self, injecting: Served, lab: Upstream, call: Call, how: str
    ) -> None:
        self.assert_demanded(call(injecting).ask("GET", "/v1/models", NOT_SHOWN[how]))
        assert not lab.requests

    def test_whoever_shows_another_one_in_the_query_too(self, injecting: Served, lab: Upstream, call: Call) -> None:
        self.assert_demanded(call(injecting).ask("GET", f"/v1/models?key={TOKEN}x&token={TOKEN}"))
        assert not lab.requests

    def test_where_clients_have_their_own_keys_those_are_none_of_its_business(
        self, guarded: Served, lab: Upstream, call: Call
    ) -> None:
        fields = [("Authorization", "Bearer mine"), ("X-Unbroken-Token", TOKEN)]
        assert call(guarded).ask("GET", "/v1/models?key=mine", fields).status == 200
        (request,) = lab.requests
        assert (request.header("authorization"), request.target) == ("Bearer mine", "/v1/models?key=mine")
        assert TOKEN not in str(request)
        self.assert_demanded(
            call(guarded).ask("GET", f"/v1/models?key={TOKEN}", [("Authorization", f"Bearer {TOKEN}")])
        )

    def test_the_relays_own_pages_take_it_as_a_password(self, guarded: Served, call: Call) -> None:
        answer = call(guarded).ask("GET", "/_unbroken/metrics")
        assert (answer.status, answer.value("www-authenticate")) == (401, 'Basic realm="unbroken"')
        assert call(guarded).ask("GET", "/_unbroken/metrics", [("Authorization", basic("", TOKEN))]).status == 200
        assert call(guarded).ask("GET", f"/_unbroken/metrics?key={TOKEN}").status == 200

    def test_health_is_told_to_everybody(self, guarded: Served, call: Call) -> None:
        assert call(guarded).ask("GET", "/_unbroken/health").json == {"status": "ok"}
        assert call(guarded).ask("GET", "/_unbroken/healthy").status == 401

    @pytest.mark.parametrize("origins", [frozenset(), frozenset({"https://app.test"})])
    def test_a_preflight_opens_no_door(self, serve: Serve, lab: Upstream, call: Call, origins: frozenset[str]) -> None:
        """What the relay does not answer itself it would forward, with its key."""
        upstreams = {"lab": UpstreamSettings("lab", lab.url, key=SECRET)}
        relay = serve(upstreams, default="lab", token=TOKEN, inject_key=True, origins=origins)
        fields = [("Origin", "https://evil.test"), ("Access-Control-Request-Method", "POST")]
        self.assert_demanded(call(relay).ask("OPTIONS", "/v1/models", fields))
        assert not lab.requests

    @pytest.mark.parametrize(
        ("dialect", "target", "name", "value"),
        [
            ("openai-chat", "/v1/models", "authorization", f"Bearer {SECRET}"),
            ("anthropic-messages", "/v1/models", "x-api-key", SECRET),
            ("gemini", "/v1beta/models", "x-goog-api-key", SECRET),
        ],
    )
    def test_its_key_stands_alone_where_the_dialect_has_it(
        self, serve: Serve, lab: Upstream, call: Call, dialect: str, target: str, name: str, value: str
    ) -> None:
        upstreams = {"lab": UpstreamSettings("lab", lab.origin, dialect, SECRET, "LAB_KEY")}
        relay = serve(upstreams, default="lab", token=TOKEN, inject_key=True)
        own = [("Authorization", "Bearer mine"), ("x-api-key", "mine"), ("api-key", "mine"), ("x-goog-api-key", "mine")]
        assert call(relay).ask("GET", f"{target}?key=mine", [*own, ("X-Unbroken-Token", TOKEN)]).status == 200
        (request,) = lab.requests
        assert [field for field in request.headers if SECRET in field[1]] == [(name, value)]
        assert "mine" not in str(request)

    def test_a_key_that_is_not_there_is_told(self, serve: Serve, lab: Upstream, call: Call) -> None:
        upstreams = {
            "lab": UpstreamSettings("lab", lab.url, key_env="LAB_KEY"),
            "free": UpstreamSettings("free", lab.url),
        }
        relay = serve(upstreams, token=TOKEN, inject_key=True)
        answer = call(relay).ask("GET", "/lab/models", [("X-Unbroken-Token", TOKEN)])
        assert (answer.status, answer.code) == (401, "no_key")
        assert answer.json["error"]["message"] == "no key for lab: the relay was started without LAB_KEY"
        assert call(relay).ask("GET", "/free/models", [("Authorization", f"Bearer {TOKEN}")]).status == 200
        (request,) = lab.requests
        assert request.header("authorization") is None

    def test_neither_is_told_by_the_log(self, injecting: Served, call: Call) -> None:
        call(injecting).ask("GET", f"/v1/models?key={TOKEN}", [("Authorization", f"Bearer {TOKEN}")])
        call(injecting).ask("GET", f"/v1/models?key={TOKEN}wrong")
        injecting.entry(1)
        assert TOKEN not in str(injecting.entries)
        assert SECRET not in str(injecting.entries)

    def test_its_comparison_takes_as_long_wherever_they_differ(
        self, guarded: Served, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compared = []

        def compare(shown: bytes, wanted: bytes) -> bool:
            compared.append((shown, wanted))
            return same(shown, wanted)

        same = hmac.compare_digest
        monkeypatch.setattr(hmac, "compare_digest", compare)
        self.assert_demanded(call(guarded).ask("GET", "/v1/models", [("X-Unbroken-Token", "wrong")]))
        assert compared == [(b"wrong", TOKEN.encode())]

    @staticmethod
    def assert_demanded(answer: Received) -> None:
        assert (answer.status, answer.code) == (401, "relay_token")
        assert answer.value("www-authenticate") == 'Bearer realm="unbroken"'
        assert TOKEN not in str(answer)


class TestCrossOrigin:
    ASKS = (("Origin", "https://app.test"), ("Access-Control-Request-Method", "POST"))

    def test_no_field_of_it_unless_told(self, served: Served, lab: Upstream, call: Call) -> None:
        for answer in (
            call(served).ask("GET", "/v1/models", [("Origin", "https://app.test")]),
            call(served).ask("OPTIONS", "/v1/models", self.ASKS),
            call(served).ask("GET", "/v1/models", [("Origin", "https://app.test")], host="evil.test"),
        ):
            assert not [name for name, _ in answer.headers if name.startswith("access-control-")]

    def test_a_preflight_is_answered_by_the_relay(self, serve: Serve, lab: Upstream, call: Call) -> None:
        relay = serve(lab.url, origins=frozenset({"https://app.test"}), token=TOKEN)
        fields = [*self.ASKS, ("Access-Control-Request-Headers", "authorization,x-stainless-os")]
        answer = call(relay).ask("OPTIONS", "/v1/chat/completions", fields)
        assert answer.status == 204
        assert answer.headers == [
            ("access-control-allow-origin", "https://app.test"),
            ("access-control-expose-headers", "*"),
            ("vary", "origin"),
            ("access-control-allow-methods", "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"),
            ("access-control-allow-headers", "authorization,x-stainless-os"),
            ("access-control-max-age", "600"),
        ]
        assert not lab.requests

    @pytest.mark.parametrize(
        ("origins", "allowed"), [({"https://app.test"}, True), ({"*"}, True), ({"https://b.test"}, False)]
    )
    def test_whoever_may_read_is_told_so_in_every_answer(
        self, serve: Serve, lab: Upstream, call: Call, origins: set[str], allowed: bool
    ) -> None:
        relay = serve(lab.url, origins=frozenset(origins))
        origin = [("Origin", "https://app.test")]
        answers = [
            call(relay).ask("GET", "/v1/models", origin),
            call(relay).ask("GET", "/nowhere", origin),
            call(relay).ask_json("/v1/chat/completions", {"stream": True, "messages": []}, origin),
        ]
        wanted = ["https://app.test"] if allowed else []
        assert [answer.values("access-control-allow-origin") for answer in answers] == [wanted] * 3
        assert ["origin" in answer.values("vary") for answer in answers] == [allowed] * 3

    def test_who_says_no_origin_is_told_nothing(self) -> None:
        settings = Settings(upstreams={}, origins=frozenset({"*"}))
        assert cross_origin(incoming(), settings) == ()
        assert preflight(incoming("OPTIONS", access_control_request_method="POST"), settings) is None
        assert (
            preflight(incoming("GET", origin="https://a.test", access_control_request_method="POST"), settings) is None
        )
        assert preflight(incoming("OPTIONS", origin="https://a.test"), settings) is None


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("", ""),
        ("key=a", ""),
        ("a=1&key=b&c=%20+x", "a=1&c=%20+x"),
        ("%6B%65%79=a&b", "b"),
        ("keys=1&monkey=2&Key=3&a=key", "keys=1&monkey=2&Key=3&a=key"),
    ],
)
def test_a_token_is_taken_out_of_the_query(query: str, left: str) -> None:
    injecting = Settings(upstreams={}, inject_key=True, token=TOKEN)
    assert without_token(query, injecting) == left
    assert without_token(query, Settings(upstreams={})) == query
