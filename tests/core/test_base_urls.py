"""Base URLs: what is appended to them, and which are refused."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unbroken
from unbroken.core.dialect import Dialect
from unbroken.core.dialects import DIALECTS, find_dialect
from unbroken.core.http import Request
from unbroken.core.providers import check_base_url, choose_provider
from unbroken.errors import UsageError

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("dialect", "base_url", "url"),
    [
        ("openai-chat", "http://h/v1?api-version=1", "http://h/v1/chat/completions?api-version=1"),
        ("openai-chat", "http://h/v1/?a=1&b=/", "http://h/v1/chat/completions?a=1&b=/"),
        ("openai-chat", "http://h/v1?", "http://h/v1/chat/completions"),
        ("openai-chat", "http://h?a", "http://h/chat/completions?a"),
        ("openai-responses", "http://h/v1?a=1", "http://h/v1/responses?a=1"),
        ("anthropic-messages", "http://h?a=1", "http://h/v1/messages?a=1"),
        ("anthropic-messages", "http://h/v1?a=1", "http://h/v1/messages?a=1"),
        ("anthropic-messages", "http://h/?v=/v1", "http://h/v1/messages?v=/v1"),
        ("gemini", "http://h?a=1", "http://h/v1beta/models/m:streamGenerateContent?a=1&alt=sse"),
        ("gemini", "http://h/v1?a=1", "http://h/v1/models/m:streamGenerateContent?a=1&alt=sse"),
        ("gemini", "http://h?alt=json&a=1", "http://h/v1beta/models/m:streamGenerateContent?a=1&alt=sse"),
        ("gemini", "http://h", "http://h/v1beta/models/m:streamGenerateContent?alt=sse"),
        ("interactions", "http://h?a=1", "http://h/v1beta/interactions?a=1"),
        ("interactions", "http://h/v1?a=1", "http://h/v1/interactions?a=1"),
    ],
)
def test_the_query_of_a_base_url_is_kept(dialect: str, base_url: str, url: str) -> None:
    assert find_dialect(dialect).url(base_url, "m") == url


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-flash", "/v1beta/models/gemini-flash:streamGenerateContent"),
        ("a/b@1:c", "/v1beta/models/a/b@1:c:streamGenerateContent"),
        ("a?b#c", "/v1beta/models/a%3Fb%23c:streamGenerateContent"),
        ("a b%", "/v1beta/models/a%20b%25:streamGenerateContent"),
        ("ö", "/v1beta/models/%C3%B6:streamGenerateContent"),
        ("\udc80", "/v1beta/models/%3F:streamGenerateContent"),
    ],
)
def test_a_models_name_cannot_change_the_url(model: str, path: str) -> None:
    parts = urlsplit(find_dialect("gemini").url("http://h", model))
    assert (parts.path, parts.query, parts.fragment) == (path, "alt=sse", "")


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@given(
    base=st.sampled_from(["http://h/v1", "http://h/v1/", "http://h/a/b"]),
    query=st.lists(st.sampled_from(["", "a", "a=1", "alt=x", "b=%20", "c=/v1", "d=?"])).map("&".join),
    model=st.text(min_size=1),
)
def test_what_is_asked_at_it_is_recognised(dialect: Dialect, base: str, query: str, model: str) -> None:
    url = dialect.url(f"{base}?{query}", model)
    body = b'{"model": "m", "stream": true, "messages": [], "input": [], "prompt": "", "contents": []}'
    assert dialect.recognise(Request("POST", url, body=body))
    kept = dict(parse_qsl(query, keep_blank_values=True)) | {"alt": "sse"}
    assert set(dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))) <= set(kept)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://h/v1#part", "cannot have a fragment"),
        ("http://h/v1#", "cannot have a fragment"),
        (f"http://h/v1?key={SECRET}#x", "cannot have a fragment"),
        (f"http://me:{SECRET}@h/v1", "cannot carry credentials"),
        (f"http://me:{SECRET}@h?a=1", "cannot carry credentials"),
        (f"http://me:{SECRET}#x@h", "cannot be read"),
        ("nope", "is not an http:// or https:// URL"),
        ("http://[::1]x/v1", "a host with characters that no host name has"),
        ("http://x[::1]/v1", "a host with characters that no host name has|cannot be read"),
        ("http://a|b/v1", "a host with characters that no host name has"),
        ('http://a"b/v1', "a host with characters that no host name has"),
        ("http://*/v1", "a host with characters that no host name has"),
        ("http://%41/v1", "a host with characters that no host name has"),
    ],
)
def test_a_base_url_that_is_refused(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        check_base_url(url)
    assert SECRET not in str(caught.value)
    with pytest.raises(UsageError, match=r"^SOME_URL: "):
        check_base_url(url, "SOME_URL")


@pytest.mark.parametrize(
    "url",
    ["http://h?a=b@c", "http://[::1]:80/v1", "http://[fe80::1%25eth0]/v1", "http://a_b.c-d:1", "http://127.0.0.1:/v1"],
)
def test_a_base_url_that_is_taken(url: str) -> None:
    check_base_url(url)


def test_a_variable_with_a_bad_url_is_named() -> None:
    with pytest.raises(UsageError, match=r"^OPENAI_BASE_URL: 'nope' is not"):
        choose_provider("openai", None, {"OPENAI_BASE_URL": "nope"})


def test_a_base_url_that_does_not_fit_the_dialect_is_told() -> None:
    said = "openai-completions is not spoken at http://h: does the base URL lack"
    with (
        unbroken.Client(base_url="http://h?key=s3cret", dialect="openai-completions", proxy="") as client,
        pytest.raises(UsageError, match=said),
    ):
        client.stream("hi")


@pytest.mark.parametrize(
    ("given", "kept"),
    [("http://h/v1/", "http://h/v1"), ("http://h/v1//?a=/", "http://h/v1?a=/"), ("http://h?a", "http://h?a")],
)
def test_a_slash_at_the_end_of_the_path_is_dropped(given: str, kept: str) -> None:
    assert choose_provider(None, given, {}).base_url == kept
    assert choose_provider("openai", None, {"OPENAI_BASE_URL": given}).base_url == kept
