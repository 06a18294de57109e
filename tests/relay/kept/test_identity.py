"""Digests of who asks, and of what is asked."""

from __future__ import annotations

from typing import Any

import pytest

from relay.serving import settings_to
from unbroken.core.dialects import recognise
from unbroken.core.http import Request
from unbroken.relay.client_request import ClientRequest
from unbroken.relay.kept.identity import Identity, identify, owner_of

KEY = "sk-0123456789-0123456789"
BODY = b'{"model": "m", "stream": true, "messages": []}'
URL = "http://lab/v1/chat/completions"


def incoming(*fields: tuple[str, str], query: str = "") -> ClientRequest:
    headers = [(name.encode(), value.encode()) for name, value in fields]
    scope: dict[str, Any] = {"method": "POST", "path": "/v1/chat/completions", "query_string": query.encode()}
    return ClientRequest({**scope, "headers": headers, "http_version": "1.1"}, None, 1.0)  # type: ignore[arg-type]


def identity(
    *fields: tuple[str, str], upstream: str = "lab", url: str = URL, body: bytes = BODY, **settings: Any
) -> Identity:
    request = incoming(("authorization", f"Bearer {KEY}"), *fields)
    outgoing = Request("POST", url, request.headers, body)
    call = recognise(outgoing)
    assert call is not None
    return identify(request, settings_to("http://lab", **settings), upstream, outgoing, call)


def test_one_request_has_one_digest() -> None:
    assert identity() == identity()
    assert identity(("user-agent", "a")).request == identity(("user-agent", "b")).request
    assert len(identity().request) == 64


@pytest.mark.parametrize(
    "other",
    [
        {"upstream": "other"},
        {"url": URL + "?x=1"},
        {"url": URL.replace("/v1", "/v1/v1")},
        {"body": BODY.replace(b'"m"', b'"n"')},
        {"body": BODY + b" "},
    ],
)
def test_another_request_has_another_one(other: dict[str, Any]) -> None:
    assert identity(**other).request != identity().request
    assert identity(**other).owner == identity().owner


def test_the_order_of_members_makes_no_other_request() -> None:
    """Codex orders some at random, each time it asks."""
    first, again = (
        b'{"stream": true, "model": "m", "messages": [1, 2], "metadata": {"b": {"d": 1, "c": 2}, "a": 1.5}}',
        b'{"metadata": {"a": 1.5, "b": {"c": 2, "d": 1}}, "model": "m", "stream": true, "messages": [1, 2]}',
    )
    assert identity(body=first).request == identity(body=again).request
    for other in (
        first.replace(b"[1, 2]", b"[2, 1]"),
        first.replace(b'"c": 2', b'"c": 1').replace(b'"d": 1', b'"d": 2'),
    ):
        assert identity(body=other).request != identity(body=first).request


@pytest.mark.parametrize("rest", [b'"\\ud800"', b"1e999", b"NaN", b'"\xff"'])
def test_a_body_that_cannot_be_read_is_the_same_byte_for_byte(rest: bytes) -> None:
    first, other = (b'{"stream": true, "model": %b, "x": ' % model + rest + b"}" for model in (b'"m"', b'"n"'))
    assert identity(body=first).request == identity(body=first).request != identity(body=other).request


@pytest.mark.parametrize("name", ["openai-organization", "openai-project", "openai-beta"])
def test_headers_that_the_dialect_names_count(name: str) -> None:
    assert len({identity().request, identity((name, "a")).request, identity((name, "b")).request}) == 3
    assert identity((name, "a"), ("x-other", "1")).request == identity((name, "a")).request


def test_a_key_is_one_of_its_owner() -> None:
    assert identity().key == ""
    assert identity(("idempotency-key", "a")).key != identity(("idempotency-key", "b")).key
    assert identity(("idempotency-key", "a")).key == identity(("idempotency-key", "a"), body=BODY + b" ").key


@pytest.mark.parametrize(("count", "is_retry"), [("0", False), ("1", True), ("", False), ("7", True)])
def test_a_retry_is_marked(count: str, is_retry: bool) -> None:
    assert identity(("x-stainless-retry-count", count)).is_retry is is_retry


def owner(*fields: tuple[str, str], query: str = "", **settings: Any) -> str:
    return owner_of(incoming(*fields, query=query), settings_to("http://lab", **settings))


def test_the_owner_is_who_shows_the_key() -> None:
    mine = owner(("authorization", f"Bearer {KEY}"))
    assert mine == owner(("x-api-key", KEY)) == owner(query=f"key={KEY}") != ""
    assert mine != owner(("x-api-key", KEY + "x"))
    assert mine != owner(("authorization", f"Bearer {KEY}"), ("x-api-key", KEY + "x"))
    assert KEY not in mine


@pytest.mark.parametrize(
    "word", ["", "ollama", "EMPTY", "none", "sk-no-key-required", "NO_KEY", "sk-xxxxxxxx", "x" * 40, "***", "sk-"]
)
def test_what_everybody_sends_is_no_credential(word: str) -> None:
    assert owner(("authorization", f"Bearer {word}")) == ""
    assert owner(("x-api-key", word)) == ""


@pytest.mark.parametrize("word", ["k", "sk-alice", "sk-test", "xavier", "token-abc123"])
def test_a_short_key_is_a_credential(word: str) -> None:
    assert owner(("authorization", f"Bearer {word}")) == owner(("x-api-key", word)) != ""


def test_the_token_is_a_credential_where_there_is_no_other() -> None:
    token = {"token": "a-token"}
    by_token = owner(("x-unbroken-token", "a-token"), **token)
    assert by_token != ""
    assert by_token == owner(("authorization", "Bearer a-token"), **token)
    assert by_token != owner(("authorization", f"Bearer {KEY}"), **token)
    assert owner(("authorization", f"Bearer {KEY}"), **token) == owner(("authorization", f"Bearer {KEY}"))
    injected = {"token": "a-token", "inject_key": True}
    assert owner(("authorization", f"Bearer {KEY}"), **injected) == by_token
    assert by_token != owner(token="another-token")
