"""Options are honoured or refused, never ignored."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from ports import free_port
from transports.asking import Way
from unbroken import Policy, UsageError
from unbroken.lab import CuttingProxy, Fault

PATH = "/chat/completions"


@pytest.mark.parametrize(
    "option",
    [
        {"uds": "/tmp/socket"},
        {"local_address": "127.0.0.1"},
        {"retries": 1},
        {"socket_options": [(1, 2, 3)]},
        {"http1": False},
        {"verify": "/no/such/file"},
        {"cert": "/no/such/file"},
    ],
    ids=lambda option: next(iter(option)),
)
def test_what_cannot_be_honoured_is_refused(way: Way, option: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        way.transport(**option)


def test_no_answer_begins_again_in_bytes(way: Way) -> None:
    with pytest.raises(UsageError, match=r"a transport cannot begin an answer again .*--hold answer"):
        way.transport(policy=Policy(after_output="restart"))


def test_a_proxys_own_headers_and_trust_are_refused(way: Way) -> None:
    for own in ({"headers": {"x": "y"}}, {"ssl_context": ssl.create_default_context()}):
        url = "https://localhost:1" if "ssl_context" in own else "http://localhost:1"
        with pytest.raises(UsageError):
            way.transport(proxy=way.library.Proxy(url, **own))


def test_a_ca_file_is_trusted_for_both_kinds_of_request(
    way: Way, serve, authority: trustme.CA, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    upstream = serve(ssl_context=server_tls)
    assert way.post(upstream.url + PATH, verify=str(file)).status == 200
    assert way.request("GET", upstream.url + "/models", verify=str(file)).status == 200
    assert isinstance(way.post(upstream.url + PATH).error, way.library.ConnectError)
    assert way.post(upstream.url + PATH, verify=False).status == 200


def test_the_next_of_several_paths_is_taken(way: Way, serve) -> None:
    upstream = serve()
    missing = f"http://127.0.0.1:{free_port()}"
    for given in (missing, way.library.Proxy(missing)):
        assert way.post(upstream.url + PATH, proxy=[given, "direct"]).status == 200


@pytest.mark.parametrize("kind", ["url", "Proxy"])
def test_a_proxy_is_used_for_both_kinds_of_request(way: Way, serve, kind: str) -> None:
    upstream = serve()
    with CuttingProxy() as proxy:
        given = proxy.url if kind == "url" else way.library.Proxy(proxy.url)
        assert way.post(upstream.url + PATH, proxy=given).status == 200
        assert len(proxy.tunnels) == 1
        assert way.request("GET", upstream.url + "/models", proxy=given).status == 200
        assert proxy.connections == 2


def test_the_environments_proxy_is_used_for_both_kinds_of_request(
    way: Way, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = serve()
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with CuttingProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        assert way.post(upstream.url + PATH).status == 200
        assert way.request("GET", upstream.url + "/models").status == 200
        assert proxy.connections == 2
        assert way.post(upstream.url + PATH, trust_env=False).status == 200
        assert way.request("GET", upstream.url + "/models", trust_env=False).status == 200
        assert proxy.connections == 2


def test_a_transport_that_is_handed_in_does_the_sending(way: Way, serve) -> None:
    upstream = serve(Fault("rst", "after_role"))
    inner = (way.library.AsyncHTTPTransport if way.is_async else way.library.HTTPTransport)()
    reply = way.post(upstream.url + PATH, inner=inner)
    assert reply.error is None
    assert reply.data == upstream.requests[-1].sent
    assert len(upstream.requests) == 2


def test_a_transport_that_is_handed_in_passes_on_the_rest(way: Way) -> None:
    inner = way.plain(lambda request: way.library.Response(204))
    assert way.request("GET", "http://lab/models", inner=inner).status == 204


def test_limits_hold_for_the_rest(way: Way, serve) -> None:
    limits = way.library.Limits(max_connections=1)
    assert way.request("GET", serve().url + "/models", limits=limits).status == 200
