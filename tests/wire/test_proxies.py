from __future__ import annotations

import pickle

import pytest

from unbroken.core.paths import REMEMBERED, PathMemory, PathName, Paths
from unbroken.errors import UsageError
from unbroken.wire.proxies import GivenProxy, Proxy, ProxyRules, parse_paths, parse_proxy

PROXY = "http://proxy.test:3128"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.test:3128", Proxy("http", "proxy.test", 3128)),
        ("proxy.test:3128", Proxy("http", "proxy.test", 3128)),
        ("http://proxy.test", Proxy("http", "proxy.test", 80)),
        ("https://proxy.test", Proxy("https", "proxy.test", 443)),
        ("SOCKS5://proxy.test", Proxy("socks5", "proxy.test", 1080)),
        ("socks5h://[::1]:1080/", Proxy("socks5h", "::1", 1080)),
        ("http://user:p%40ss@proxy.test:1", Proxy("http", "proxy.test", 1, ("user", "p@ss"))),
        ("http://user@proxy.test:1", Proxy("http", "proxy.test", 1, ("user", ""))),
    ],
)
def test_reads_a_url(url: str, proxy: Proxy) -> None:
    assert parse_proxy(url) == proxy


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("socks://proxy.test", "unknown scheme socks://.*write socks5h://"),
        ("ftp://user:secret@proxy.test", "unknown scheme ftp://"),
        ("http://", "names no host"),
        ("http://user:secret@", "names no host"),
        ("http://proxy.test:http", "an invalid port"),
        ("http://proxy.test:99999", "an invalid port"),
        ("http://[::1", "is no URL"),
    ],
)
def test_refuses_what_it_cannot_use_and_tells_no_secret(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_proxy(url)
    assert "secret" not in str(caught.value)


def test_shows_no_credentials() -> None:
    proxy = parse_proxy("http://user:secret@[::1]:3128")
    assert proxy.url == "http://[::1]:3128"
    assert "secret" not in repr(proxy)


def chosen(url: str, environ: dict[str, str], explicit: str | None = None) -> str | None:
    proxy = ProxyRules(explicit, environ).choose(url)
    return proxy.url if proxy else None


@pytest.mark.parametrize(
    ("environ", "of_http", "of_https"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": PROXY}, PROXY, None),
        ({"http_proxy": PROXY}, PROXY, None),
        ({"https_proxy": PROXY}, None, PROXY),
        ({"HTTPS_PROXY": PROXY}, None, PROXY),
        ({"ALL_PROXY": PROXY}, PROXY, PROXY),
        ({"all_proxy": PROXY}, PROXY, PROXY),
        ({"https_proxy": "http://lower:1", "HTTPS_PROXY": "http://upper:1"}, None, "http://lower:1"),
        ({"https_proxy": "http://own:1", "all_proxy": "http://all:1"}, "http://all:1", "http://own:1"),
        ({"https_proxy": " ", "all_proxy": "http://all:1"}, "http://all:1", "http://all:1"),
        ({"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None, None),  # a client set it: httpoxy
        ({"http_proxy": PROXY, "REQUEST_METHOD": "GET"}, PROXY, None),
        ({"ALL_PROXY": PROXY, "NO_PROXY": "*"}, None, None),
        ({"ALL_PROXY": PROXY, "no_proxy": "", "NO_PROXY": "*"}, None, None),
    ],
    ids=str,
)
def test_the_environment(environ: dict[str, str], of_http: str | None, of_https: str | None) -> None:
    assert chosen("http://api.test", environ) == of_http
    assert chosen("https://api.test", environ) == of_https


@pytest.mark.parametrize(
    ("no_proxy", "url", "goes_around"),
    [
        ("api.test", "https://api.test", True),
        ("API.Test", "https://api.TEST", True),
        ("api.test", "https://eu.api.test", True),
        ("api.test", "https://myapi.test", False),
        (".api.test", "https://api.test", True),
        ("*.api.test", "https://eu.api.test", True),
        ("api.test.", "https://api.test", True),
        ("api.test", "https://api.test.", True),
        ("api.test:443", "https://api.test", True),
        ("api.test:443", "https://api.test:8443", False),
        ("api.test:80", "http://api.test", True),
        ("one.test, api.test two.test", "https://api.test", True),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.0.0.0/8", "http://ten.test", False),  # a name is not looked up for this
        ("127.0.0.1", "http://127.0.0.1:8080", True),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", True),
        ("127.0.0.1:8080", "http://127.0.0.1:8081", False),
        ("fd00::/8", "http://[fd12::1]", True),
        ("::1", "http://[::1]:8080", True),
        ("[::1]", "http://[::1]:8080", True),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("[::1]:8080", "http://[::1]:8081", False),
        (",, ,", "https://api.test", False),
        ("*", "https://api.test", True),
    ],
)
def test_no_proxy(no_proxy: str, url: str, goes_around: bool) -> None:
    environ = {"ALL_PROXY": PROXY, "NO_PROXY": no_proxy}
    assert chosen(url, environ) == (None if goes_around else PROXY)


def test_an_explicit_proxy_wins_over_the_environment_and_over_no_proxy() -> None:
    assert chosen("http://api.test", {"http_proxy": "http://other:1", "NO_PROXY": "*"}, PROXY) == PROXY


def test_an_empty_proxy_means_none() -> None:
    assert chosen("http://api.test", {"http_proxy": PROXY}, "") is None


def test_a_malformed_proxy_in_the_environment_is_named() -> None:
    with pytest.raises(UsageError, match="ALL_PROXY has the unknown scheme"):
        chosen("http://api.test", {"ALL_PROXY": "gopher://proxy.test"})


def test_a_proxy_knows_where_it_was_set() -> None:
    [given] = ProxyRules(GivenProxy("http://user:secret@proxy.test:1", "--proxy"), {}).all("https://api.test")
    [found] = ProxyRules(None, {"HTTPS_PROXY": PROXY}).all("https://api.test")
    assert given is not None
    assert found is not None
    assert given.title == "the proxy at http://proxy.test:1 (--proxy)"
    assert found.title == f"the proxy at {PROXY} (HTTPS_PROXY)"
    assert parse_proxy(PROXY).title == f"the proxy at {PROXY}"
    assert found == parse_proxy(PROXY)  # a connection is used again wherever its proxy was set


def test_paths_in_order() -> None:
    proxy = parse_proxy(PROXY)
    assert parse_paths([PROXY, "direct", PROXY, ""]) == (proxy, None)
    assert parse_paths("direct") == parse_paths("") == (None,)
    with pytest.raises(UsageError, match="--proxy is an empty list"):
        parse_paths([], "--proxy")
    with pytest.raises(UsageError, match="unknown scheme gopher"):
        ProxyRules(["direct", "gopher://x"], {})


class TestTheMemory:
    URL = "https://api.test/v1/chat/completions"

    def test_is_of_a_server_and_these_paths(self) -> None:
        now, memory = 100.0, PathMemory()

        def rules(*paths: str) -> ProxyRules:
            return ProxyRules(paths, {}, memory=memory, clock=lambda: now)

        two = rules(PROXY, "direct")
        assert two.paths(self.URL) == Paths((PathName(PROXY), PathName("direct")), 0)
        two.prefer(self.URL, 1)
        assert rules(PROXY, "direct").paths("https://api.test/v1/models").first == 1
        assert rules(PROXY, "direct").choose(self.URL) is None
        assert rules("direct", PROXY).paths(self.URL).first == 0
        assert two.paths("https://other.test/").first == two.paths("http://api.test/").first == 0
        now += REMEMBERED
        assert two.paths(self.URL).first == 0
        assert two.choose(self.URL) == parse_proxy(PROXY)


def test_a_proxy_that_was_given_is_the_same_in_a_worker() -> None:
    sent = pickle.loads(pickle.dumps(GivenProxy("http://proxy.test:1", "--proxy")))
    assert (type(sent), sent, sent.source) == (GivenProxy, "http://proxy.test:1", "--proxy")
