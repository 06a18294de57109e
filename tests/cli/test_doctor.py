"""``unbroken doctor``: what it says of a path, its exit codes, and that nothing but a list of models is asked for."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme

from cli.programs import Cli, Ended
from unbroken.lab import CuttingProxy, Fault, Upstream
from unbroken.wire.resolving import Address, connect_to
from unbroken.wire.sockets import Steps, Waits

SKIPPING = ("--max", "0")
"""Without the idle test: `tests/doctor/test_idle.py` has it."""


class OneTarget:
    """A proxy that connects every CONNECT to one port, whatever is wanted."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += client.recv(1)
                server = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, server]
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def __enter__(self) -> str:
        return self.url

    def __exit__(self, *exc_info: object) -> None:
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def judged(ended: Ended) -> dict[str, Any]:
    found = json.loads(ended.out)
    assert set(found) == {"findings", "idle_limit", "path"}
    assert all(set(one) == {"code", "text", "next"} for one in found["findings"])
    return found


def codes(ended: Ended) -> list[str]:
    return [one["code"] for one in judged(ended)["findings"]]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def secure(server_tls: ssl.SSLContext) -> Iterator[Upstream]:
    with Upstream(ssl_context=server_tls) as server:
        yield server


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def test_nothing_is_wrong(cli: Cli, upstream: Upstream) -> None:
    ended = cli("doctor", "--base-url", upstream.url, *SKIPPING)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"custom: {upstream.url}\n")
    assert "nothing is wrong" in ended.out


def test_it_asks_for_the_list_of_models_alone(cli: Cli, upstream: Upstream) -> None:
    ended = cli("doctor", "--provider", "openai", *SKIPPING, OPENAI_BASE_URL=upstream.url, OPENAI_API_KEY="sk-secret")
    assert ended.code == 0
    assert {(one.method, one.target) for one in upstream.requests} == {("GET", "/v1/models")}
    assert "sk-secret" not in ended.out + ended.err


@pytest.mark.parametrize(
    ("dialect", "target"),
    [("anthropic-messages", "/v1/models"), ("gemini", "/v1beta/models"), ("openai-chat", "/models")],
)
def test_each_dialect_has_its_list(dialect: str, target: str, cli: Cli, upstream: Upstream) -> None:
    cli("doctor", "--base-url", upstream.origin, "--dialect", dialect, *SKIPPING)
    assert upstream.requests[0].target == target


def test_who_set_the_proxy_and_which_wins(cli: Cli, secure: Upstream, ca_file: str) -> None:
    with CuttingProxy(idle=60) as proxy:
        where = {"HTTPS_PROXY": proxy.url, "ALL_PROXY": "socks5://u:secret@h:1"}
        ended = cli("doctor", "--base-url", secure.url, "--ca-file", ca_file, "--json", *SKIPPING, **where)
        assert proxy.tunnels
    found = judged(ended)
    assert found["path"]["proxy"] == proxy.url
    assert [(one["source"], one["used"]) for one in found["path"]["proxies"]] == [
        ("HTTPS_PROXY", True),
        ("ALL_PROXY", False),
    ]
    assert (found["findings"], found["path"]["http_version"]) == ([], "HTTP/2")
    assert set(found["path"]["seconds"]) == {"dns", "tcp", "proxy", "tls"}
    assert "secret" not in ended.out


def test_what_no_proxy_takes_out(cli: Cli, upstream: Upstream) -> None:
    where = {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "example.com, 127.0.0.0/8"}
    ended = cli("doctor", "--base-url", upstream.url, *SKIPPING, **where)
    assert ended.code == 0
    assert "http://127.0.0.1:1 of HTTP_PROXY is not used: NO_PROXY has 127.0.0.0/8" in ended.out


def test_of_several_proxies_it_says_which_one_is_examined(cli: Cli, upstream: Upstream) -> None:
    with CuttingProxy() as proxy, CuttingProxy() as other:
        given = ("--proxy", proxy.url, "--proxy", other.url, "--proxy", "direct")
        ended = cli("doctor", "--base-url", upstream.url, *given, *SKIPPING, HTTP_PROXY="http://h:1")
        assert (bool(proxy.tunnels), other.tunnels) == (True, [])
    for following in (other.url, "direct"):
        assert f"{following} of --proxy comes next where that fails; --proxy {following} examines it" in ended.out
    assert "http://h:1 of HTTP_PROXY is not used: another one comes first" in ended.out


def test_a_given_proxy_wins_over_no_proxy(cli: Cli, upstream: Upstream) -> None:
    with CuttingProxy(idle=60) as proxy:
        args = ("--base-url", upstream.url, "--proxy", proxy.url, "--json", *SKIPPING)
        found = judged(cli("doctor", *args, NO_PROXY="*", HTTP_PROXY="http://h:1"))
    assert found["path"]["proxies"] == [
        {"source": "--proxy", "url": proxy.url, "used": True},
        {"source": "HTTP_PROXY", "url": "http://h:1", "used": False},
    ]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:{closed}/v1", "connection_refused"),
        ("http://nowhere.invalid/v1", "no_such_host"),
        ("https://127.0.0.1:{plain}/v1", "tls_mismatch"),
        ("https://127.0.0.1:{secure}/v1", "certificate"),
    ],
)
def test_what_is_not_reached(url: str, code: str, cli: Cli, upstream: Upstream, secure: Upstream) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = {"closed": closed.getsockname()[1], "plain": upstream.port, "secure": secure.port}
        ended = cli("doctor", "--base-url", url.format(**ports), "--json", *SKIPPING)
    assert (ended.code, codes(ended)) == (5, [code])
    assert judged(ended)["findings"][0]["next"]


@pytest.mark.parametrize(
    ("options", "code"),
    [({"refuse": 403}, "proxy_refused"), ({"refuse": 502}, "proxy_cannot_reach"), ({"auth": ("u", "p")}, "proxy_auth")],
)
def test_a_proxy_that_refuses_is_named(options: Any, code: str, cli: Cli, secure: Upstream, ca_file: str) -> None:
    with CuttingProxy(**options) as proxy:
        args = ("--base-url", secure.url, "--ca-file", ca_file, "--json", *SKIPPING)
        ended = cli("doctor", *args, HTTPS_PROXY=proxy.url)
    (finding,) = judged(ended)["findings"]
    assert (ended.code, finding["code"]) == (5, code)
    assert f"the proxy at {proxy.url} (HTTPS_PROXY)" in finding["text"]
    assert "--no-proxy" in finding["next"]


def test_an_answer_that_may_be_the_proxys(cli: Cli, upstream: Upstream) -> None:
    with CuttingProxy(refuse=403) as proxy:
        ended = cli("doctor", "--base-url", upstream.url, "--json", "--proxy", proxy.url, *SKIPPING)
    assert (ended.code, codes(ended)) == (4, ["proxy_answer"])


def test_a_malformed_proxy_is_a_finding(cli: Cli, upstream: Upstream) -> None:
    ended = cli("doctor", "--base-url", upstream.url, "--json", *SKIPPING, HTTP_PROXY="socks4://u:secret@h:1")
    assert (ended.code, codes(ended)) == (5, ["proxy_malformed"])
    assert "HTTP_PROXY has the unknown scheme socks4://" in ended.out
    assert "secret" not in ended.out


def test_who_signed_is_told_although_it_is_not_trusted(cli: Cli, secure: Upstream, authority: trustme.CA) -> None:
    ended = cli("doctor", "--base-url", secure.url, *SKIPPING)
    assert "it is signed by trustme" in ended.out
    assert "not trusted" in ended.out


def test_an_intercepting_proxy_is_named_as_what_it_is(cli: Cli, tmp_path: Path) -> None:
    interceptor = trustme.CA(organization_name="mitmproxy")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    interceptor.issue_cert("127.0.0.1").configure_cert(context)
    interceptor.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Upstream(ssl_context=context) as server:
        trusted = cli("doctor", "--base-url", server.url, "--ca-file", str(tmp_path / "ca.pem"), "--json", *SKIPPING)
        refused = cli("doctor", "--base-url", server.url, "--json", *SKIPPING)
    assert (trusted.code, codes(trusted)) == (4, ["tls_intercepted"])
    assert (refused.code, codes(refused)) == (5, ["tls_intercepted", "certificate"])
    assert judged(trusted)["path"]["certificate"]["intercepted_by"] == "mitmproxy"
    assert judged(refused)["path"]["certificate"]["trusted"] is False


def test_a_proxy_that_signs_under_another_name_than_the_server_is_found_out(
    cli: Cli, secure: Upstream, ca_file: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA(organization_name="Inspection").issue_cert("127.0.0.1").configure_cert(context)
    with Upstream(ssl_context=context) as front, OneTarget(front.port) as proxy:
        ended = cli("doctor", "--base-url", secure.url, "--ca-file", ca_file, "--proxy", proxy, "--json", *SKIPPING)
    assert (ended.code, codes(ended)) == (5, ["tls_intercepted", "certificate"])
    assert "signed by Inspection (without the proxy it is trustme" in judged(ended)["findings"][0]["text"]


def test_a_certificate_of_another_name_is_no_interception(cli: Cli, secure: Upstream, ca_file: str) -> None:
    with OneTarget(secure.port) as proxy:  # a proxy that takes the name for what it likes
        url = "https://llm.example.com/v1"
        ended = cli("doctor", "--base-url", url, "--ca-file", ca_file, "--proxy", proxy, "--json", *SKIPPING)
    assert (ended.code, codes(ended)) == (5, ["certificate"])
    assert "may lead to another server" in judged(ended)["findings"][0]["next"]


def test_an_address_family_that_does_not_answer_is_told(
    cli: Cli, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers_over_ipv4_alone(addresses: list[Address], remaining: Callable[[], float]) -> Steps[socket.socket]:
        while addresses[0][0] is socket.AF_INET6:
            yield Waits([], [], min(0.05, remaining()))
        return (yield from connect_to(addresses, remaining))

    found = [(socket.AF_INET, ("127.0.0.1", upstream.port)), (socket.AF_INET6, ("2001:db8::1", upstream.port, 0, 0))]
    monkeypatch.setattr("unbroken.wire.resolving.look_up", lambda host, port: found)
    monkeypatch.setattr("unbroken.doctor.examination.connect_to", answers_over_ipv4_alone)
    monkeypatch.setattr("unbroken.doctor.examination.FAMILY", 0.2)
    ended = cli("doctor", "--base-url", f"http://localhost:{upstream.port}/v1", "--json", *SKIPPING)
    assert (ended.code, codes(ended)) == (4, ["ipv6_silent"])


def test_a_proxy_that_takes_http2_away(cli: Cli, secure: Upstream, server_tls: ssl.SSLContext, ca_file: str) -> None:
    """As one does that reads TLS: behind it the same name answers, without HTTP/2."""
    with Upstream(ssl_context=server_tls, http2=False) as old, OneTarget(old.port) as proxy:
        ended = cli("doctor", "--base-url", secure.url, "--ca-file", ca_file, "--proxy", proxy, "--json", *SKIPPING)
    assert (ended.code, codes(ended)) == (4, ["http2_taken_away"])
    assert judged(ended)["path"]["direct_http_version"] == "HTTP/2"
    assert "NO_PROXY" in judged(ended)["findings"][0]["next"]


@pytest.mark.parametrize(
    ("status", "code"), [(401, "key_refused"), (403, "key_refused"), (429, "quota"), (503, "provider_down")]
)
def test_what_the_provider_refuses_is_not_the_paths(status: int, code: str, cli: Cli) -> None:
    with Upstream(faults=[Fault("status", "before_headers", status=status)] * 2) as upstream:
        where = {"OPENAI_BASE_URL": upstream.url, "OPENAI_API_KEY": "sk-secret"}
        ended = cli("doctor", "--provider", "openai", "--json", *SKIPPING, **where)
    assert (ended.code, codes(ended)) == (3, [code])


def test_a_missing_key_is_a_finding_and_the_rest_is_examined(cli: Cli, upstream: Upstream) -> None:
    ended = cli("doctor", "--provider", "deepseek", "--json", "--base-url", upstream.url, *SKIPPING)
    assert (ended.code, codes(ended)) == (3, ["key_missing"])
    assert "DEEPSEEK_API_KEY" in judged(ended)["findings"][0]["next"]
    assert judged(ended)["path"]["http_version"] == "HTTP/1.1"


def test_a_key_is_accepted_where_the_list_is_for_those_who_have_one(cli: Cli) -> None:
    with Upstream(faults=[None, Fault("status", "before_headers", status=401)]) as upstream:
        where = {"OPENAI_BASE_URL": upstream.url, "OPENAI_API_KEY": "sk-secret"}
        ended = cli("doctor", "--provider", "openai", "--json", *SKIPPING, **where)
        with_key, without = upstream.requests
    assert dict(with_key.headers)["authorization"] == "Bearer sk-secret"
    assert "authorization" not in dict(without.headers)
    assert judged(ended)["path"]["key"] == {
        "source": "OPENAI_API_KEY",
        "present": True,
        "accepted": True,
        "status": 200,
    }


def test_a_key_that_is_answered_with_400_is_refused_where_none_is_answered_with_403(cli: Cli) -> None:
    """As Google does."""
    faults = [Fault("status", "before_headers", status=status) for status in (400, 403)]
    with Upstream(faults=faults) as upstream:
        where = {"GOOGLE_GEMINI_BASE_URL": upstream.origin, "GEMINI_API_KEY": "sk-secret"}
        ended = cli("doctor", "--provider", "google", "--json", *SKIPPING, **where)
    assert (ended.code, codes(ended)) == (3, ["key_refused"])


@pytest.mark.parametrize("status", [302, 511])
def test_a_redirection_is_no_list(status: int, cli: Cli) -> None:
    with Upstream(faults=[Fault("status", "before_headers", status=status)]) as upstream:
        ended = cli("doctor", "--base-url", upstream.url, "--json", *SKIPPING)
    assert (ended.code, codes(ended)) == (4, ["redirected"])


def test_a_server_without_a_list_is_told(cli: Cli) -> None:
    with Upstream(faults=[Fault("status", "before_headers", status=404)]) as upstream:
        where = {"OPENAI_BASE_URL": upstream.url, "OPENAI_API_KEY": "sk-secret"}
        ended = cli("doctor", "--provider", "openai", *SKIPPING, **where)
    assert ended.code == 0
    assert (
        "OPENAI_API_KEY is set; whether it is accepted is not known: the list of models is answered with HTTP 404"
        in (ended.out)
    )


def test_a_list_for_everybody_proves_no_key(cli: Cli, upstream: Upstream) -> None:
    where = {"OPENAI_BASE_URL": upstream.url, "OPENAI_API_KEY": "sk-secret"}
    assert (
        judged(cli("doctor", "--provider", "openai", "--json", *SKIPPING, **where))["path"]["key"]["accepted"] is None
    )


@pytest.mark.parametrize(("offset", "found"), [(0.0, []), (3600.0, ["clock_skew"]), (-300.0, ["clock_skew"])])
def test_the_clock_is_compared(offset: float, found: list[str], cli: Cli) -> None:
    headers = {"date": formatdate(time.time() - offset, usegmt=True)}
    with Upstream(faults=[Fault("status", "before_headers", status=200, headers=headers, body=b"{}")]) as upstream:
        ended = cli("doctor", "--base-url", upstream.url, "--json", *SKIPPING)
    assert codes(ended) == found
    assert judged(ended)["path"]["clock_skew"] == pytest.approx(offset, abs=60)


def test_nobody_to_examine_is_a_mistake(cli: Cli) -> None:
    ended = cli("doctor")
    assert (ended.code, ended.out) == (2, "")
    assert "no provider: name one" in ended.err
