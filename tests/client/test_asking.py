"""From what is asked to the request that asks it: body, headers, provider and key."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from client.asking import KEY, Asking
from unbroken import __version__
from unbroken.client import PROVIDERS, AsyncClient, Client
from unbroken.client.request_builder import RequestBuilder
from unbroken.core.policy import Policy
from unbroken.errors import UsageError
from unbroken.lab import Upstream

Serve = Callable[..., Upstream]


class TestTheBody:
    def asked(self, asking: Asking, upstream: Upstream, *args: Any, **options: Any) -> dict[str, Any]:
        assert asking(upstream, *args, **options).error is None
        body: dict[str, Any] = json.loads(upstream.requests[0].body)
        return body

    def test_of_a_prompt(self, asking: Asking, serve: Serve) -> None:
        assert self.asked(asking, serve(), "Hello") == {
            "model": "default",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def test_of_a_conversation(self, asking: Asking, serve: Serve) -> None:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text"}]}]
        assert self.asked(asking, serve(), tuple(messages))["messages"] == messages

    def test_of_tools_and_options(self, asking: Asking, serve: Serve) -> None:
        tools = [{"type": "function", "function": {"name": "look"}}]
        body = self.asked(asking, serve(), "Hi", model="m", tools=tools, temperature=0, stop=["."], n=1)
        assert (body["model"], body["tools"], body["temperature"], body["stop"], body["n"]) == ("m", tools, 0, ["."], 1)

    def test_options_have_the_last_word(self, asking: Asking, serve: Serve) -> None:
        body = self.asked(asking, serve(), "Hi", stream_options={"include_usage": False})
        assert body["stream_options"] == {"include_usage": False}

    def test_is_utf8(self, asking: Asking, serve: Serve) -> None:
        assert self.asked(asking, serve(), "Grüße 👋")["messages"][0]["content"] == "Grüße 👋"

    @pytest.mark.parametrize("messages", ["", [], ()])
    def test_of_nothing_is_a_mistake(self, messages: Any) -> None:
        client = Client(base_url="http://127.0.0.1:1", _environ={})
        with pytest.raises(UsageError, match="nothing to ask"):
            client.stream(messages)

    @pytest.mark.parametrize("value", [object(), {1, object()}, "\ud800"])
    def test_that_is_no_json_is_a_mistake(self, value: Any) -> None:
        client = Client(base_url="http://127.0.0.1:1", _environ={})
        with pytest.raises(UsageError, match="not JSON"):
            client.stream("Hi", user=value)


class TestTheHeaders:
    def test_are_these(self, asking: Asking, serve: Serve) -> None:
        upstream = serve()
        asking(upstream, client={"headers": {"X-Title": "Tests", "user-agent": "tests/1"}})
        (request,) = upstream.requests
        assert request.header("authorization") == f"Bearer {KEY}"
        assert request.header("content-type") == "application/json"
        assert request.header("accept") == "text/event-stream, application/json"
        assert request.header("x-title") == "Tests"
        assert [value for name, value in request.headers if name == "user-agent"] == ["tests/1"]

    def test_can_hold_the_key_in_another_way(self, asking: Asking, serve: Serve) -> None:
        upstream = serve()
        asking(upstream, client={"headers": {"authorization": "Basic abc"}})
        assert [value for name, value in upstream.requests[0].headers if name == "authorization"] == ["Basic abc"]

    def test_name_the_program(self, asking: Asking, serve: Serve) -> None:
        upstream = serve()
        asking(upstream)
        assert upstream.requests[0].header("user-agent") == f"unbroken/{__version__}"

    @pytest.mark.parametrize(
        "arguments",
        [
            {"headers": {"X-Break": "a\r\nX-Evil: b"}},
            {"headers": {"X Space": "a"}},
            {"headers": {"X-Snow": "☃"}},
            {"api_key": "sk-☃"},
            {"api_key": "sk-a\nb"},
        ],
    )
    def test_that_http_cannot_carry_are_a_mistake(self, arguments: dict[str, Any]) -> None:
        with Client(base_url="http://127.0.0.1:1", _environ={}, **arguments) as client:
            with pytest.raises(UsageError) as caught:
                client.stream("Hi")
            assert "sk-" not in str(caught.value)


class TestTheProvider:
    @pytest.mark.parametrize("name", PROVIDERS)
    def test_is_known_by_name(self, name: str) -> None:
        preset = PROVIDERS[name]
        environ = {preset.key_env: KEY} if preset.key_env else {}
        for kind in (Client, AsyncClient):
            client = kind(name, _environ=environ)
            assert client.provider == preset
            assert preset.base_url.startswith(("https://", "http://127.0.0.1"))

    @pytest.mark.parametrize(("name", "replays"), [("ollama", 8), ("llama.cpp", 8), ("openai", None)])
    def test_says_how_often_it_is_replayed_unless_the_caller_does(self, name: str, replays: int | None) -> None:
        def replays_of(policy: Policy | None) -> int | None:
            given = {"api_key": "k", "base_url": None, "model": None, "headers": None, "environ": {}}
            return RequestBuilder(name, policy=policy, **given).policy.replays

        assert replays_of(None) == replays_of(Policy(idle_timeout=7)) == replays
        assert replays_of(Policy(replays=3)) == 3

    def test_is_known_whatever_the_case(self) -> None:
        assert Client("DeepSeek", _environ={"DEEPSEEK_API_KEY": KEY}).provider.name == "deepseek"

    def test_that_is_unknown_is_a_mistake_and_the_known_ones_are_named(self) -> None:
        with pytest.raises(UsageError, match="deepseek, openai") as caught:
            Client("deepsick", _environ={})
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize(
        ("environ", "name"),
        [
            ({"OPENAI_API_KEY": KEY}, "openai"),
            ({"OPENAI_API_KEY": KEY, "DEEPSEEK_API_KEY": KEY}, "deepseek"),
            ({"OPENAI_API_KEY": KEY, "DEEPSEEK_API_KEY": ""}, "openai"),
            ({"XAI_API_KEY": KEY}, "xai"),
        ],
    )
    def test_is_the_first_whose_key_is_set(self, environ: dict[str, str], name: str) -> None:
        assert Client(_environ=environ).provider.name == name

    def test_must_be_known_somehow(self) -> None:
        with pytest.raises(UsageError, match="DEEPSEEK_API_KEY"):
            Client(_environ={})

    def test_can_be_redirected_by_its_own_variable(self, asking: Asking, serve: Serve) -> None:
        upstream = serve()
        environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{upstream.url}/"}
        said = asking(upstream, client={"provider": "openai", "base_url": None, "api_key": None, "_environ": environ})
        assert said.error is None
        (request,) = upstream.requests
        assert request.target == "/v1/chat/completions"
        assert request.header("authorization") == f"Bearer {KEY}"
        assert json.loads(request.body)["model"] == PROVIDERS["openai"].model

    @pytest.mark.parametrize(
        "url", ["api.deepseek.com", "ftp://host/v1", "http://", "http://host:99999", "http://ho st", "http://hö"]
    )
    def test_url_must_be_one(self, url: str) -> None:
        with pytest.raises(UsageError):
            Client(base_url=url, _environ={})

    def test_without_a_default_model_wants_one_named(self) -> None:
        client = Client("together", api_key=KEY, _environ={})
        with pytest.raises(UsageError, match="name a model"):
            client.stream("Hi")
        client.stream("Hi", model="m")

    def test_that_does_not_know_stream_options_is_not_sent_any(self, asking: Asking, serve: Serve) -> None:
        upstream = serve()
        asking(upstream, client={"provider": "mistral"})
        assert "stream_options" not in json.loads(upstream.requests[0].body)


class TestTheKey:
    """It goes to its provider, and elsewhere only where the caller has said so."""

    def sent(self, asking: Asking, upstream: Upstream, **client: Any) -> str | None:
        assert asking(upstream, client={"api_key": None, **client}).error is None
        return upstream.requests[0].header("authorization")

    def test_of_the_environment_does_not_go_to_a_base_url(self, asking: Asking, serve: Serve) -> None:
        environ = {preset.key_env: KEY for preset in PROVIDERS.values() if preset.key_env}
        assert self.sent(asking, serve(), _environ=environ) is None

    def test_goes_there_if_it_is_handed_over(self, asking: Asking, serve: Serve) -> None:
        assert self.sent(asking, serve(), api_key="sk-other") == "Bearer sk-other"

    def test_goes_there_if_its_variable_is_named(self, asking: Asking, serve: Serve) -> None:
        assert self.sent(asking, serve(), _environ={"MY_KEY": KEY}, key_env="MY_KEY") == f"Bearer {KEY}"

    def test_goes_there_if_the_provider_is_named(self, asking: Asking, serve: Serve) -> None:
        assert self.sent(asking, serve(), provider="openai", _environ={"OPENAI_API_KEY": KEY}) == f"Bearer {KEY}"

    def test_is_not_needed_there(self, asking: Asking, serve: Serve) -> None:
        assert self.sent(asking, serve(), provider="openai") is None

    def test_is_stripped(self, asking: Asking, serve: Serve) -> None:
        environ = {"MY_KEY": f" {KEY}\n"}
        assert self.sent(asking, serve(), _environ=environ, key_env="MY_KEY") == f"Bearer {KEY}"

    def test_that_is_missing_is_a_mistake_and_its_variable_is_named(self) -> None:
        with pytest.raises(UsageError, match="DEEPSEEK_API_KEY"):
            Client("deepseek", _environ={"DEEPSEEK_API_KEY": " "})
        with pytest.raises(UsageError, match="MY_KEY"):
            Client("deepseek", _environ={"DEEPSEEK_API_KEY": KEY}, key_env="MY_KEY")

    def test_is_not_needed_on_ones_own_machine(self) -> None:
        assert Client("ollama", _environ={}).provider.is_local
