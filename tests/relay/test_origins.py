"""A page of another site cannot use what the relay supplies: an injected key, or an upstream that needs none."""

from __future__ import annotations

import base64

import pytest

from relay.serving import Call, Fields, Serve, Served
from unbroken.lab import Upstream
from unbroken.relay.settings import UpstreamSettings

TOKEN, KEY = "relay-token-0123456789", "sk-provider-0123456789"
CHAT = b'{"model": "lab", "messages": [], "stream": true}'
BASIC = "Basic " + base64.b64encode(f"anyone:{TOKEN}".encode()).decode()

FOREIGN: dict[str, Fields] = {
    "another site": [("Origin", "https://evil.test"), ("Sec-Fetch-Site", "cross-site")],
    "another port of this machine": [("Origin", "http://localhost:3000"), ("Sec-Fetch-Site", "same-site")],
    "a sandboxed page": [("Origin", "null")],
    "a file": [("Origin", "file://")],
    "a desktop application": [("Origin", "app://obsidian.md")],
    "a view of an editor": [("Origin", "vscode-webview://1f2e3d")],
    "a browser that sends no origin": [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")],
}
FORM: Fields = [("Content-Type", "text/plain")]


@pytest.fixture
def injecting(serve: Serve, lab: Upstream) -> Served:
    upstream = UpstreamSettings("lab", lab.url, key=KEY, key_env="LAB_KEY")
    return serve({"lab": upstream}, inject_key=True, token=TOKEN)


@pytest.fixture
def keyless(serve: Serve, lab: Upstream) -> Served:
    """Before a server that needs no key, such as a local model."""
    return serve({"lab": UpstreamSettings("lab", lab.url)})


@pytest.mark.parametrize("page", FOREIGN)
class TestAForeignPage:
    def test_cannot_spend_an_injected_key_with_a_browsers_credentials(
        self, injecting: Served, lab: Upstream, call: Call, page: str
    ) -> None:
        fields = [*FOREIGN[page], *FORM, ("Authorization", BASIC)]
        answer = call(injecting).ask("POST", "/lab/v1/chat/completions", fields, CHAT)
        assert answer.status == 401, "Basic counts below /_unbroken/ alone"
        assert not lab.requests

    def test_cannot_use_a_server_without_keys(self, keyless: Served, lab: Upstream, call: Call, page: str) -> None:
        answer = call(keyless).ask("POST", "/lab/v1/chat/completions", [*FOREIGN[page], *FORM], CHAT)
        assert (answer.status, answer.code) == (403, "cross_origin")
        origin = dict(FOREIGN[page]).get("Origin", "another site")
        assert origin in answer.json["error"]["message"]
        assert "--allow-origin" in answer.json["error"]["message"]
        assert not lab.requests
        assert keyless.entry()["outcome"] == "rejected"

    def test_nor_by_a_get(self, keyless: Served, lab: Upstream, call: Call, page: str) -> None:
        assert call(keyless).ask("GET", "/lab/v1/models", FOREIGN[page]).status == 403
        assert not lab.requests

    @pytest.mark.parametrize(
        "own", [("Authorization", f"Bearer {TOKEN}"), ("x-api-key", TOKEN), ("x-unbroken-token", TOKEN)], ids=str
    )
    def test_passes_with_credentials_of_its_own(
        self, injecting: Served, call: Call, page: str, own: tuple[str, str]
    ) -> None:
        answer = call(injecting).ask("POST", "/lab/v1/chat/completions", [*FOREIGN[page], *FORM, own], CHAT)
        assert answer.status == 200

    def test_passes_where_its_key_is_forwarded(self, serve: Serve, lab: Upstream, call: Call, page: str) -> None:
        served = serve({"lab": UpstreamSettings("lab", lab.url, key_env="LAB_KEY")})
        answer = call(served).ask("POST", "/lab/v1/chat/completions", [*FOREIGN[page], *FORM], CHAT)
        assert answer.status == 200, "the relay supplies nothing here"

    def test_passes_where_it_is_allowed(self, serve: Serve, lab: Upstream, call: Call, page: str) -> None:
        served = serve({"lab": UpstreamSettings("lab", lab.url)}, origins=frozenset({"*"}))
        answer = call(served).ask("POST", "/lab/v1/chat/completions", [*FOREIGN[page], *FORM], CHAT)
        assert answer.status == (200 if "Origin" in dict(FOREIGN[page]) else 403)


class TestWhatIsNoForeignPage:
    def test_a_program(self, keyless: Served, call: Call) -> None:
        assert call(keyless).ask("POST", "/lab/v1/chat/completions", [], CHAT).status == 200

    def test_the_relays_own_page(self, keyless: Served, call: Call) -> None:
        own = [("Origin", f"http://localhost:{keyless.port}"), ("Host", f"localhost:{keyless.port}")]
        client = call(keyless)
        client.send(
            b"GET /lab/v1/models HTTP/1.1\r\n"
            + b"".join(f"{name}: {value}\r\n".encode() for name, value in own)
            + b"\r\n"
        )
        assert client.answer().status == 200

    @pytest.mark.parametrize("site", ["same-origin", "none"])
    def test_a_browser_that_says_so(self, keyless: Served, call: Call, site: str) -> None:
        assert call(keyless).ask("GET", "/lab/v1/models", [("Sec-Fetch-Site", site)]).status == 200

    def test_one_origin_that_is_allowed(self, serve: Serve, lab: Upstream, call: Call) -> None:
        served = serve({"lab": UpstreamSettings("lab", lab.url)}, origins=frozenset({"app://obsidian.md"}))
        assert call(served).ask("GET", "/lab/v1/models", FOREIGN["a desktop application"]).status == 200
        assert call(served).ask("GET", "/lab/v1/models", FOREIGN["another site"]).status == 403


class TestTheStatusPage:
    def test_is_redirected_to_before_the_token_is_asked_for(self, injecting: Served, call: Call) -> None:
        answer = call(injecting).ask("GET", "/_unbroken")
        assert (answer.status, answer.value("location"), answer.value("www-authenticate")) == (308, "/_unbroken/", None)

    def test_takes_basic_credentials_below_its_own_path(self, injecting: Served, call: Call) -> None:
        assert call(injecting).ask("GET", "/_unbroken/").status == 401
        assert call(injecting).ask("GET", "/_unbroken/", [("Authorization", BASIC)]).status == 200
        assert call(injecting).ask("GET", "/lab/v1/models", [("Authorization", BASIC)]).status == 401


def test_an_upstream_cannot_act_on_the_relays_origin(serve: Serve, call: Call) -> None:
    from unbroken.lab import Fault

    hostile = {
        "set-cookie": "session=x; Path=/",
        "alt-svc": 'h2="evil.test:443"',
        "strict-transport-security": "max-age=1",
        "clear-site-data": '"*"',
        "refresh": "0; url=https://evil.test",
        "x-unbroken-turn": "forged",
        "content-security-policy": "default-src *",
        "content-type": "text/html",
    }
    page = Fault("status", "before_headers", status=200, headers=hostile, body=b"<script>alert(1)</script>")
    with Upstream(faults=[page, page]) as upstream:
        served = serve(upstream.url)
        for method, path, body in (("GET", "/v1/models", b""), ("POST", "/v1/chat/completions", CHAT)):
            answer = call(served).ask(method, path, [], body)
            assert answer.status == 200
            assert [answer.values(name) for name in ("set-cookie", "alt-svc", "refresh", "clear-site-data")] == [[]] * 4
            assert answer.values("strict-transport-security") == []
            assert answer.value("x-unbroken-turn") != "forged"
            assert answer.values("content-security-policy") == ["sandbox"]
            assert answer.values("x-content-type-options") == ["nosniff"]
