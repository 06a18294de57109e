"""Header fields on their way through: what is taken off, what is added, and that all else stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.serving import Call, Serve, Served, ServeRaw
from unbroken.core.dialects import credential_headers
from unbroken.core.http import Head, Headers
from unbroken.core.report import Report
from unbroken.lab import Upstream
from unbroken.relay.headers import downwards, lowered, report_headers, upwards, values
from unbroken.relay.settings import UpstreamSettings
from wire.servers import saying

PLAIN = UpstreamSettings("lab", "http://host")
VIA = b"1.1 unbroken-test"

HOP_BY_HOP = [
    b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization",
]  # fmt: skip

names = st.sampled_from([*HOP_BY_HOP, b"x-a", b"x-b", b"set-cookie", b"cookie", b"accept-encoding", b"host"])
tokens = st.sampled_from([b"close", b"X-A", b"x-b", b"Cookie", b"keep-alive", b"", b"te"])
connections = st.tuples(st.just(b"connection"), st.lists(tokens, max_size=3).map(b", ".join))
headers = st.lists(st.one_of(st.tuples(names, st.just(b"v")), connections), max_size=12).map(tuple)


def up(headers: Headers, upstream: UpstreamSettings = PLAIN, *, inject: bool = False) -> Headers:
    """What the upstream sees, but for ``Via``."""
    *kept, via = upwards(headers, upstream, inject=inject, via=VIA)
    assert via == (b"via", VIA)
    return tuple(kept)


def down(headers: Headers, *, stream: bool = False) -> list[tuple[bytes, bytes]]:
    *fields, nosniff, sandbox = downwards(Head(200, headers), stream=stream)
    assert (nosniff, sandbox) == ((b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox"))
    return fields


def is_hop_by_hop(name: bytes, headers: Headers) -> bool:
    """Independently of how the relay finds out."""
    named = b",".join(value for field, value in headers if field == b"connection").lower()
    return name in HOP_BY_HOP or name in [token.strip() for token in named.split(b",")]


class TestUpwards:
    @settings(deadline=None)
    @given(headers)
    def test_nothing_hop_by_hop_passes_and_all_else_does_in_order(self, headers: Headers) -> None:
        passed = [field for field in headers if not is_hop_by_hop(field[0], headers) and field[0] != b"host"]
        assert list(up(headers)) == passed

    def test_what_the_relay_alone_is_told_does_not_pass(self) -> None:
        assert up(((b"host", b"localhost"), (b"expect", b"100-continue"), (b"x-unbroken-token", b"t"))) == ()

    def test_the_via_of_others_is_kept_before_ours(self) -> None:
        assert upwards(((b"via", b"1.0 fred"),), PLAIN, inject=False, via=VIA) == ((b"via", b"1.0 fred"), (b"via", VIA))

    def test_the_clients_credentials_pass_where_none_are_injected(self) -> None:
        own = tuple((name, b"its own") for name in sorted(credential_headers()))
        assert up(own, UpstreamSettings("lab", "http://host", key="k")) == own

    @pytest.mark.parametrize(
        ("dialect", "field"),
        [
            ("openai-chat", (b"authorization", b"Bearer k")),
            ("openai-responses", (b"authorization", b"Bearer k")),
            ("anthropic-messages", (b"x-api-key", b"k")),
            ("gemini", (b"x-goog-api-key", b"k")),
            ("interactions", (b"x-goog-api-key", b"k")),
        ],
    )
    def test_an_injected_key_stands_alone_and_where_its_dialect_has_it(
        self, dialect: str, field: tuple[bytes, bytes]
    ) -> None:
        own = tuple((name, b"its own") for name in sorted(credential_headers()))
        upstream = UpstreamSettings("lab", "http://host", dialect, key="k")
        assert up((*own, (b"x-a", b"1")), upstream, inject=True) == ((b"x-a", b"1"), field)

    def test_an_upstream_without_a_key_gets_none(self) -> None:
        assert up(((b"authorization", b"Bearer relay-token"),), PLAIN, inject=True) == ()


class TestDownwards:
    @settings(deadline=None)
    @given(headers)
    def test_nothing_hop_by_hop_passes_and_all_else_does_in_order(self, headers: Headers) -> None:
        kept_back = {b"set-cookie", b"alt-svc", b"refresh", b"content-security-policy", b"x-content-type-options"}
        passing = [field for field in headers if field[0] not in kept_back]
        assert down(headers) == [field for field in passing if not is_hop_by_hop(field[0], headers)]

    def test_names_are_matched_whatever_their_case(self) -> None:
        assert down(((b"Connection", b"X-Hop"), (b"x-HOP", b"1"), (b"Keep-Alive", b"5"), (b"X-A", b"B"))) == [
            (b"x-a", b"B")
        ]

    def test_who_may_read_it_across_origins_is_for_the_relay_to_say(self) -> None:
        assert down(
            ((b"Access-Control-Allow-Origin", b"*"), (b"access-control-expose-headers", b"*"), (b"vary", b"a"))
        ) == [(b"vary", b"a")]

    def test_a_length_is_not_promised_where_more_may_come(self) -> None:
        assert down(((b"Content-Length", b"5"),)) == [(b"content-length", b"5")]
        assert down(((b"Content-Length", b"5"),), stream=True) == []

    def test_what_http_1_cannot_carry_is_taken_out(self) -> None:
        """HTTP/2 brings such things, and whoever writes HTTP/1.1 would rather say nothing than forge it."""
        assert down(((b"x a", b"1"), (b"", b"1"), (b"x:a", b"1"), (b"x-a", b"a\x01b\x7f\r\nc\td\xe9"))) == [
            (b"x-a", b"a b   c\td\xe9")
        ]


def test_whitespace_around_a_value_is_no_part_of_it() -> None:
    assert lowered([(b"X-A", b" \ta b\t ")]) == ((b"x-a", b"a b"),)


def test_every_value_of_a_field_in_order() -> None:
    assert values([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")], b"a") == [b"1", b"3"]
    assert values([], b"a") == []


def test_a_report_in_fields_has_no_empty_ones() -> None:
    fields = dict(report_headers("a1b2", Report()))
    assert fields[b"x-unbroken-turn"] == b"a1b2"
    assert b"x-unbroken-lost" not in fields


class TestOnTheWire:
    """The same, as both sides of a relay that is really served see it."""

    def test_what_an_upstream_sees_of_a_request(self, served: Served, lab: Upstream, call: Call) -> None:
        fields = [
            ("Connection", "close, X-Hop"), ("X-Hop", "1"), ("TE", "trailers"), ("Keep-Alive", "5"),
            ("Via", "1.0 fred"), ("Proxy-Authorization", "Basic x"), ("Proxy-Connection", "keep-alive"),
            ("X-Unbroken-Token", "t"), ("Authorization", "Bearer mine"), ("Accept-Encoding", "gzip, br;q=0.5"),
            ("User-Agent", "probe/1"), ("Cookie", "a=1"), ("Cookie", "b=2"), ("X-Odd", "caf\xe9 \t, ,"),
            ("X-Empty", ""),
        ]  # fmt: skip
        assert call(served).ask("GET", "/v1/models", fields).status == 200
        (request,) = lab.requests
        *seen, via = request.headers
        assert seen == [
            ("host", f"127.0.0.1:{lab.port}"), ("via", "1.0 fred"), ("authorization", "Bearer mine"),
            ("accept-encoding", "gzip, br;q=0.5"), ("user-agent", "probe/1"),
            ("cookie", "a=1"), ("cookie", "b=2"), ("x-odd", "caf\xe9 \t, ,"), ("x-empty", ""),
        ]  # fmt: skip
        assert via[0] == "via"
        assert via[1].startswith("1.1 unbroken-")

    def test_what_a_client_sees_of_a_response(self, serve: Serve, serve_raw: ServeRaw, call: Call) -> None:
        upstream = serve_raw(saying(
            b"HTTP/1.1 200 OK\r\nServer: odd\r\nDate: today\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
            b"Keep-Alive: 5\r\nProxy-Authenticate: Basic\r\nTrailer: X-T\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n"
            b"X-Odd: a\x01b\xe9\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok"
        ))  # fmt: skip
        answer = call(serve(upstream.url)).ask("GET", "/v1/x")
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.headers == [
            ("server", "odd"), ("date", "today"), ("x-odd", "a b\xe9"), ("content-length", "2"),
            ("x-content-type-options", "nosniff"), ("content-security-policy", "sandbox"),
        ]  # fmt: skip

    def test_trailers_are_not_taken_for_headers(self, served: Served, lab: Upstream, call: Call) -> None:
        client = call(served)
        client.send(
            b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n0\r\nHost: evil.test\r\nX-Trailer: 1\r\nX-Unbroken-Token: t\r\n\r\n"
        )
        assert client.answer().status == 404
        (request,) = lab.requests
        assert request.body == b"abc"
        assert request.header("x-trailer") is None

    def test_a_loop_is_noticed(self, serve: Serve, call: Call, lab: Upstream) -> None:
        first = serve({"next": "http://127.0.0.1:9"}, default="next")
        second = serve(f"{first.origin}/next")
        first.settings.upstreams["next"] = UpstreamSettings("next", second.origin)
        answer = call(first).ask("GET", "/v1/models")
        assert (answer.status, answer.code) == (508, "loop")
