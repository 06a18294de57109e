"""What a relay can be told, and what it cannot."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken.core.policy import Policy
from unbroken.errors import UsageError
from unbroken.relay.settings import Settings, UpstreamSettings, is_loopback

SECRET = "s3cret"


class TestUpstream:
    @pytest.mark.parametrize("name", ["openai", "llama.cpp", "a", "0", "my_own-1"])
    def test_a_name(self, name: str) -> None:
        assert UpstreamSettings(name, "http://host/v1").name == name

    @pytest.mark.parametrize(
        "name", ["", "OpenAI", "a/b", ".", "..", "_unbroken", "a b", "ä", "v1", "v1beta", "v1alpha"]
    )
    def test_what_cannot_be_one_or_means_something_else_in_a_path(self, name: str) -> None:
        with pytest.raises(UsageError, match="cannot name an upstream"):
            UpstreamSettings(name, "http://host/v1")

    @pytest.mark.parametrize(
        ("url", "complaint"),
        [
            ("host/v1", "is not an http:// or https:// URL"),
            ("ftp://host", "is not an http:// or https:// URL"),
            ("http://", "names no host"),
            ("http://host/v1?key=s3cret", "cannot have a query"),
            ("http://host/v1#s3cret", "cannot have a query"),
            ("http://user:s3cret@host/v1", "cannot carry credentials"),
        ],
    )
    def test_a_base_url_that_is_none(self, url: str, complaint: str) -> None:
        with pytest.raises(UsageError, match=complaint) as caught:
            UpstreamSettings("lab", url)
        assert SECRET not in str(caught.value)

    def test_an_at_sign_in_the_path_is_no_credential(self) -> None:
        assert UpstreamSettings("lab", "http://host/@me/v1").root == "http://host/@me"

    def test_its_key_is_not_shown(self) -> None:
        assert SECRET not in repr(UpstreamSettings("lab", "http://host", key=SECRET))

    @pytest.mark.parametrize(
        ("base_url", "root"),
        [
            ("https://api.openai.com/v1", "https://api.openai.com"),
            ("https://api.openai.com/v1/", "https://api.openai.com"),
            ("https://api.openai.com", "https://api.openai.com"),
            ("https://api.openai.com///", "https://api.openai.com"),
            ("https://api.groq.com/openai/v1", "https://api.groq.com/openai"),
            ("http://host/v1/v1", "http://host/v1"),
            ("http://host/apiv1", "http://host/apiv1"),
            ("http://v1", "http://v1"),
            ("http://v1/v1", "http://v1"),
            ("http://[::1]:1/v1", "http://[::1]:1"),
        ],
    )
    def test_its_version_is_a_part_of_what_clients_ask_for(self, base_url: str, root: str) -> None:
        assert UpstreamSettings("lab", base_url).root == root

    @pytest.mark.parametrize(
        ("path", "url"),
        [
            ("v1/models", "http://host/api/v1/models"),
            ("api/v1/models", "http://host/api/v1/models"),
            ("api", "http://host/api/"),
            ("", "http://host/api/"),
            ("apiary/x", "http://host/api/apiary/x"),
            ("api//x", "http://host/api//x"),
            ("x//y/", "http://host/api/x//y/"),
            ("%61pi/x", "http://host/api/%61pi/x"),
        ],
    )
    def test_its_own_path_is_not_repeated(self, path: str, url: str) -> None:
        assert UpstreamSettings("lab", "http://host/api/v1").url_of(path) == url

    @settings(deadline=None)
    @given(st.text("abv1./%-_~", max_size=20), st.sampled_from(["http://host", "http://v1/a/b/v1", "http://h:1/v1/"]))
    def test_no_path_leads_out_of_its_root(self, path: str, base_url: str) -> None:
        upstream = UpstreamSettings("lab", base_url)
        assert upstream.url_of(path).startswith(f"{upstream.root}/")
        assert upstream.root in base_url


class TestSettings:
    def test_the_default_upstream_is_one_of_them(self) -> None:
        upstreams = {"a": UpstreamSettings("a", "http://a"), "b": UpstreamSettings("b", "http://b")}
        assert Settings(upstreams=upstreams, default="b").default == "b"
        assert Settings(upstreams=upstreams).default == ""
        with pytest.raises(UsageError, match="the default upstream 'c' is not there; known are a, b"):
            Settings(upstreams=upstreams, default="c")

    def test_no_answer_begins_again_in_bytes(self) -> None:
        with pytest.raises(UsageError, match=r"the relay cannot begin an answer again .*--hold answer"):
            Settings(upstreams={}, policy=Policy(after_output="restart"))

    def test_keys_are_injected_for_whoever_shows_a_token_only(self) -> None:
        with pytest.raises(UsageError, match="demands a token"):
            Settings(upstreams={}, inject_key=True)
        assert Settings(upstreams={}, inject_key=True, token="t").inject_key

    def test_its_token_is_not_shown(self) -> None:
        assert SECRET not in repr(
            Settings(upstreams={"a": UpstreamSettings("a", "http://a", key=SECRET)}, token=SECRET)
        )


@pytest.mark.parametrize("host", ["localhost", "api.localhost", "127.0.0.1", "127.255.0.9", "::1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "127.0.0.1.evil.test",
        "localhost.evil.test",
        "notlocalhost",
        "2130706433",
        "127.1",
    ],
)
def test_not_surely_this_machine(host: str) -> None:
    assert not is_loopback(host)
