from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.core.http import Head, Request, check_url, redacted
from unbroken.errors import UsageError

SECRET = "s3cret"


class TestRequest:
    def test_its_parts(self) -> None:
        request = Request("POST", "https://host:8443/v1/chat/completions?a=b#c", ((b"A", b"b"),), b"{}")
        assert request.path == "/v1/chat/completions"
        assert (request.parts.hostname, request.parts.port, request.parts.query) == ("host", 8443, "a=b")
        assert Request("GET", "http://host").path == "/"

    def test_setting_a_header_replaces_every_one_of_its_name(self) -> None:
        request = Request(
            "POST", "http://host/", ((b"Accept-Encoding", b"gzip"), (b"X", b"1"), (b"accept-encoding", b"br"))
        )
        assert request.with_headers(accept_encoding="identity").headers == (
            (b"X", b"1"),
            (b"accept-encoding", b"identity"),
        )
        assert len(request.headers) == 3

    @pytest.mark.parametrize("method", ["", "PO ST", "POST\r\n", "POST /", "ÄPFEL"])
    def test_a_method_that_is_none(self, method: str) -> None:
        with pytest.raises(UsageError, match="is not an HTTP method"):
            Request(method, "http://host/")

    @pytest.mark.parametrize("name", [b"", b"a b", b"a:b", b"a\r\nb", "ä".encode()])
    def test_a_header_name_that_is_none(self, name: bytes) -> None:
        with pytest.raises(UsageError, match="a name with characters that no name may contain"):
            Request("GET", "http://host/", ((name, b""),))

    @pytest.mark.parametrize("value", [b"a\r\nForged: b", b"a\nb", b"a\rb", b"a\0b"])
    def test_a_header_value_that_would_forge_another(self, value: bytes) -> None:
        with pytest.raises(UsageError, match="the value of header X contains a line break or NUL"):
            Request("GET", "http://host/", ((b"X", value),))

    def test_nothing_secret_in_its_representation(self) -> None:
        headers = ((b"Authorization", f"Bearer {SECRET}".encode()),)
        request = Request("POST", f"https://u:{SECRET}@host/v1?key={SECRET}", headers, SECRET.encode())
        assert repr(request) == "Request(POST https://host/v1)"

    def test_nor_in_what_is_said_of_a_header_that_is_none(self) -> None:
        with pytest.raises(UsageError) as caught:
            Request("POST", "http://host/", ((f"Authorization: Bearer {SECRET}".encode(), b""),))
        assert SECRET not in str(caught.value)


class TestHead:
    def test_fields_are_joined_and_named_in_lower_case(self) -> None:
        head = Head(200, ((b"Vary", b"a"), (b"VARY", b"b"), (b"X-\xe4", b"\xff")))
        assert head.fields == {"vary": "a, b", "x-ä": "ÿ"}

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (b"text/event-stream", "text/event-stream"),
            (b"Text/HTML; charset=utf-8", "text/html"),
            (b"", ""),
            (b" ;", ""),
        ],
    )
    def test_the_content_type_without_its_parameters(self, value: bytes, kind: str) -> None:
        assert Head(200, ((b"Content-Type", value),)).content_type == kind
        assert Head(200).content_type == ""

    def test_without_some_fields(self) -> None:
        head = Head(200, ((b"Content-Length", b"5"), (b"X", b"1"), (b"content-length", b"5")), "HTTP/2")
        assert head.without("content-length") == Head(200, ((b"X", b"1"),), "HTTP/2")


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "http://host",
            "https://host:1/",
            "http://127.0.0.1:8080/v1",
            "http://[::1]:80/",
            "https://u:p@host/a%20b?c=d",
        ],
    )
    def test_good(self, url: str) -> None:
        check_url(url)

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("", "is not an http:// or https:// URL"),
            ("host/v1", "is not an http:// or https:// URL"),
            ("localhost:8080/v1", "'localhost:8080/v1' is not an http:// or https:// URL"),
            ("ftp://host/", "is not an http:// or https:// URL"),
            ("http://", "names no host"),
            ("http:///v1", "names no host"),
            ("http://:80/", "names no host"),
            ("http://host:0/", "names no host"),
            ("http://host:port/", "cannot be read"),
            ("http://host:99999/", "cannot be read"),
            ("http://[::1/", "cannot be read"),
            ("http://host/a b", "spaces or control characters"),
            ("http://host/\r\nForged: x", "spaces or control characters"),
            ("http://hö.st/", "must be ASCII"),
        ],
    )
    def test_bad_and_what_to_do(self, url: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            check_url(url)

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("https://host/v1", "https://host/v1"),
            (f"https://user:{SECRET}@host:8/v1", "https://host:8/v1"),
            (f"https://{SECRET}@host", "https://host"),
            (f"https://host/v1?key={SECRET}#x", "https://host/v1"),
            (f"https://host?x=a@{SECRET}", "https://host"),
            (f"https://host/v1?key=a@{SECRET}", "https://host/v1"),
            (f"https://user:{SECRET}@host/@scope/x", "https://host/@scope/x"),
            (f"user:{SECRET}@host/v1", "..."),
            (f"https://user:{SECRET}/x@host/", "..."),
            (f"https://user:{SECRET}?x@host/", "..."),
            ("/relative/path?x=1", "/relative/path"),
            ("localhost:8080/v1", "localhost:8080/v1"),
        ],
    )
    def test_what_may_be_shown_of_a_url(self, url: str, shown: str) -> None:
        assert redacted(url) == shown

    @given(
        st.sampled_from(["", "http://", "https://", "ftp://", "//"]),
        st.text(st.characters(codec="ascii", exclude_characters="@/?#"), max_size=5),
        st.sampled_from(["", "/", "/path", "?q", " ", "\n", ":99999", "[", "/a@b"]),
    )
    def test_no_message_quotes_a_password(self, scheme: str, around: str, rest: str) -> None:
        url = f"{scheme}user:{around}{SECRET}@host{rest}"
        messages = [redacted(url)]
        try:
            check_url(url)
        except UsageError as exc:
            messages.append(str(exc))
        assert not any(SECRET in message for message in messages)
