"""Which upstream a path leads to, and under which URL."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.serving import Call, Serve, Served
from unbroken.core.providers import PROVIDERS
from unbroken.lab import Upstream
from unbroken.relay.routes import find_route, is_ambiguous, is_own
from unbroken.relay.settings import Settings, UpstreamSettings

PRESETS = {name: UpstreamSettings(name, preset.base_url, preset.dialect) for name, preset in PROVIDERS.items()}


def lead(path: str, query: str = "", *, default: str = "openai") -> str | None:
    """Where a path leads to among the presets."""
    route = find_route(Settings(upstreams=PRESETS, default=default), path, query)
    return route and route.url


class TestFindRoute:
    @pytest.mark.parametrize(
        ("path", "url"),
        [
            ("/openai/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
            ("/openai/chat/completions", "https://api.openai.com/chat/completions"),
            ("/deepseek/v1/chat/completions", "https://api.deepseek.com/v1/chat/completions"),
            ("/groq/openai/v1/chat/completions", "https://api.groq.com/openai/v1/chat/completions"),
            ("/groq/v1/chat/completions", "https://api.groq.com/openai/v1/chat/completions"),
            ("/openrouter/api/v1/models", "https://openrouter.ai/api/v1/models"),
            ("/openrouter/v1/models", "https://openrouter.ai/api/v1/models"),
            ("/anthropic/v1/messages", "https://api.anthropic.com/v1/messages"),
            ("/anthropic/messages", "https://api.anthropic.com/v1/messages"),
            ("/anthropic/messages/count_tokens", "https://api.anthropic.com/v1/messages/count_tokens"),
            ("/anthropic/models", "https://api.anthropic.com/v1/models"),
            ("/anthropic/messagesque", "https://api.anthropic.com/messagesque"),
            ("/google/v1beta/models/m:streamGenerateContent", "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent"),
            ("/google/upload/v1beta/files", "https://generativelanguage.googleapis.com/upload/v1beta/files"),
            ("/llama.cpp/v1/models", "http://127.0.0.1:8080/v1/models"),
            ("/openai", "https://api.openai.com/"),
            ("/openai/", "https://api.openai.com/"),
            ("/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
            ("/v1", "https://api.openai.com/v1"),
            ("/v1beta/models", "https://api.openai.com/v1beta/models"),
            ("/v1alpha/models", "https://api.openai.com/v1alpha/models"),
        ],
    )  # fmt: skip
    def test_where_a_path_leads(self, path: str, url: str) -> None:
        assert lead(path) == url

    @pytest.mark.parametrize(
        "path",
        ["/", "", "//v1/models", "//openai/v1", "/nobody/v1", "/OpenAI/v1", "/openai%2Fv1", "/v2/models", "/models"],
    )
    def test_a_path_that_leads_nowhere(self, path: str) -> None:
        assert lead(path) is None

    def test_without_a_default_upstream_v1_leads_nowhere(self) -> None:
        assert lead("/v1/models", default="") is None
        assert lead("/openai/v1/models", default="") == "https://api.openai.com/v1/models"

    def test_the_default_upstream_may_be_any(self) -> None:
        assert lead("/v1/messages", default="anthropic") == "https://api.anthropic.com/v1/messages"
        assert lead("/v1beta/models", default="google") == "https://generativelanguage.googleapis.com/v1beta/models"

    def test_the_query_stays_as_it_is(self) -> None:
        assert lead("/v1/models", "A=%C3b+c&&x=/../&d") == "https://api.openai.com/v1/models?A=%C3b+c&&x=/../&d"

    @settings(deadline=None)
    @given(
        st.lists(st.text("abv1.%2eEfF5cC/\\", max_size=8), max_size=5).map("/".join),
        st.sampled_from(["", "v1/", "tenant/a/v1/"]),
        st.sampled_from(["openai-chat", "anthropic-messages"]),
    )
    def test_what_is_not_ambiguous_never_leaves_the_base_url(self, path: str, base: str, dialect: str) -> None:
        """Not even at a server that decodes the path before it takes the dots out, and thinks of Windows."""
        if is_ambiguous(f"/lab/{path}"):
            return
        settings = Settings(upstreams={"lab": UpstreamSettings("lab", f"https://host/{base}", dialect)})
        route = find_route(settings, f"/lab/{path}", "")
        assert route
        parts = urlsplit(route.url)
        assert (parts.scheme, parts.netloc) == ("https", "host")
        reached = posixpath.normpath(unquote(parts.path).replace("\\", "/").lstrip("/"))
        root = base.removesuffix("/").removesuffix("v1").removesuffix("/")
        assert f"{reached}/".startswith(f"{root}/" if root else "")
        assert reached.partition("/")[0] != ".."


@pytest.mark.parametrize(
    "path",
    ["/lab/../x", "/lab/./x", "/lab/..", "/..", ".", "/lab/%2e%2e/x", "/lab/.%2E/x", "/lab/%2E", "/lab/a%2f..%2fb",
     "/lab/..%2Fx", "/lab/..\\x", "/lab/a%5C..%5cb", "/lab//../x"],
)  # fmt: skip
def test_dot_segments_are_ambiguous(path: str) -> None:
    assert is_ambiguous(path)


@pytest.mark.parametrize(
    "path", ["/lab/x", "/lab/...", "/lab/..x", "/lab/x..", "/lab/.well-known", "/lab/%2e%2e%2e", "/"]
)
def test_dots_in_names_are_not(path: str) -> None:
    assert not is_ambiguous(path)


def test_what_is_the_relays_own() -> None:
    assert is_own("/_unbroken")
    assert is_own("/_unbroken/metrics")
    assert not is_own("/_unbrokenly")
    assert not is_own("/lab/_unbroken/")


class TestOnTheWire:
    """The same, as an upstream sees it behind a relay that is really served."""

    @pytest.mark.parametrize(
        "target",
        [
            "/v1/a%20b%2Fc%2fd%C3%A4?x=%20+%26&y=%zz&&k",
            "/v1//x//",
            "/v1/a{b}|\"<>^`~!$'()*,;:@[]",
            "/v1/x?y?z=/../",
            "/v1/x:y",
        ],
    )
    def test_paths_and_queries_arrive_unaltered(self, served: Served, lab: Upstream, call: Call, target: str) -> None:
        call(served).ask("GET", target)
        assert [request.target for request in lab.requests] == [target]

    def test_each_upstream_has_its_own_path(self, serve: Serve, lab: Upstream, call: Call) -> None:
        relay = serve(
            {
                "plain": lab.url,
                "deep": f"{lab.origin}/api/v1",
                "claude": UpstreamSettings("claude", lab.origin, "anthropic-messages"),
            }
        )
        client = call(relay)
        for target in ("/plain/v1/models", "/deep/v1/models", "/deep/api/v1/models", "/claude/models"):
            assert client.ask("GET", target).status == 200
        assert [request.target for request in lab.requests] == [
            "/v1/models",
            "/api/v1/models",
            "/api/v1/models",
            "/v1/models",
        ]

    def test_what_leads_nowhere_is_told_where_it_could(self, serve: Serve, lab: Upstream, call: Call) -> None:
        answer = call(serve({"a": lab.url, "b": lab.url})).ask("GET", "/v1/models")
        assert (answer.status, answer.code) == (404, "no_such_route")
        assert answer.json["error"]["message"].endswith(
            "there are /a/..., /b/...; /v1/... needs a default upstream (--default)"
        )
        assert not lab.requests

    @pytest.mark.parametrize(
        "target", ["/v1/../x", "/v1/%2e%2E/x", "/v1/a%2f..%2fb", "/lab/.", "/_unbroken/../v1/models"]
    )
    def test_dot_segments_are_refused(self, served: Served, lab: Upstream, call: Call, target: str) -> None:
        answer = call(served).ask("GET", target)
        assert (answer.status, answer.code) == (400, "bad_request")
        assert not lab.requests
