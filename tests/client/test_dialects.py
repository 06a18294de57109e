"""The dialects through the client: the same events, and conversations that can go on."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

import unbroken
from client.asking import Asking
from unbroken.core.dialect import Dialect
from unbroken.core.dialects import DIALECTS
from unbroken.core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from unbroken.core.dialects.gemini import GEMINI
from unbroken.core.dialects.interactions import INTERACTIONS
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.dialects.openai_completions import OPENAI_COMPLETIONS
from unbroken.lab import Fault, ScriptedAnswer, Upstream

KEY = "sk-dialects"
WHOLE = ScriptedAnswer(
    text=["Hello", " world"], reasoning=["hm"], tool_calls=[("call_1", "weather", ['{"city":', '"Paris"}'])]
)


@pytest.fixture(params=[dialect.name for dialect in DIALECTS if dialect is not OPENAI_COMPLETIONS])
def dialect(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def settings(upstream: Upstream, dialect: str) -> dict[str, Any]:
    return {"base_url": upstream.url, "dialect": dialect, "api_key": KEY, "model": "m", "proxy": ""}


def test_every_dialect_gives_the_same_events(asking: Asking, dialect: str) -> None:
    with Upstream(answer=WHOLE) as upstream:
        said = asking(upstream, client=settings(upstream, dialect))
    assert said.error is None
    assert said.answer.text == "Hello world"
    assert said.answer.reasoning == "hm"
    assert [(call.name, call.parsed) for call in said.answer.tool_calls] == [("weather", {"city": "Paris"})]
    assert said.answer.usage.total == 10
    assert said.answer.finish_reason


@pytest.mark.parametrize("point", ["before_headers", "after_headers", "after_role"])
def test_every_dialect_survives_a_cut_before_output(asking: Asking, dialect: str, point: str) -> None:
    with Upstream(faults=[Fault("rst", point)], answer=WHOLE) as upstream:
        said = asking(upstream, client=settings(upstream, dialect))
        assert said.answer.text == "Hello world"
        assert len(upstream.requests) == 2
        assert upstream.requests[0].body == upstream.requests[1].body


def test_no_dialect_passes_a_truncated_answer_off_as_whole(asking: Asking, dialect: str) -> None:
    with Upstream(
        faults=[Fault("clean_end", "after_token")], answer=ScriptedAnswer(text=["Hello", " world"])
    ) as upstream:
        said = asking(upstream, client=settings(upstream, dialect))
        assert isinstance(said.error, unbroken.StreamCut)
        assert said.error.text == "Hello"
        assert len(upstream.requests) == 1


def test_a_conversation_goes_on_with_what_came_back(dialect: str) -> None:
    asked = {"role": "user", "content": "Hi"}
    with Upstream(answer=WHOLE) as upstream, unbroken.Client(**settings(upstream, dialect)) as client:
        with client.stream([asked]) as turn:
            came_back = turn.read().messages
        with client.stream([asked, *came_back, asked]) as turn:
            turn.read()
        sent = json.loads(upstream.requests[1].body)
    conversation = sent.get("messages") or sent.get("input") or sent.get("contents")
    assert conversation[1:-1] == came_back
    assert "Hello world" in json.dumps(came_back)
    assert "weather" in json.dumps(came_back)


def test_the_reasonings_signature_is_kept_where_there_is_one() -> None:
    with Upstream(answer=WHOLE) as upstream, unbroken.Client(**settings(upstream, "anthropic-messages")) as client:
        turn = client.stream("Hi")
        with turn:
            events = list(turn)
    signatures = [event.signature for event in events if isinstance(event, unbroken.Signature)]
    assert signatures
    assert {"type": "thinking", "thinking": "hm", "signature": signatures[0]} in turn.answer.messages[0]["content"]


def test_a_system_message_goes_where_the_dialect_wants_it(dialect: str) -> None:
    with Upstream() as upstream, unbroken.Client(**settings(upstream, dialect)) as client:
        with client.stream([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]) as turn:
            turn.read()
        sent = json.loads(upstream.requests[0].body)
    places = {
        "openai-chat": lambda: sent["messages"][0]["content"],
        "openai-responses": lambda: sent["input"][0]["content"],
        "anthropic-messages": lambda: sent["system"],
        "gemini": lambda: sent["systemInstruction"]["parts"][0]["text"],
        "interactions": lambda: sent["system_instruction"],
    }
    assert places[dialect]() == "Be brief."


@pytest.mark.parametrize(
    ("dialect", "field", "value"),
    [
        ("openai-chat", "authorization", f"Bearer {KEY}"),
        ("openai-responses", "authorization", f"Bearer {KEY}"),
        ("anthropic-messages", "x-api-key", KEY),
        ("gemini", "x-goog-api-key", KEY),
        ("interactions", "x-goog-api-key", KEY),
    ],
)
def test_the_key_goes_in_the_dialects_header_and_not_in_the_url(dialect: str, field: str, value: str) -> None:
    with Upstream() as upstream, unbroken.Client(**settings(upstream, dialect)) as client:
        with client.stream("Hi") as turn:
            turn.read()
        request = upstream.requests[0]
    assert request.header(field) == value
    assert KEY not in request.target
    assert [name for name, content in request.headers if KEY in content] == [field]


@pytest.mark.parametrize(
    ("dialect", "base", "url"),
    [
        (OPENAI_CHAT, "https://api.deepseek.com/v1", "https://api.deepseek.com/v1/chat/completions"),
        (ANTHROPIC_MESSAGES, "https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        (ANTHROPIC_MESSAGES, "https://gateway/anthropic/v1", "https://gateway/anthropic/v1/messages"),
        (GEMINI, "https://host", "https://host/v1beta/models/m:streamGenerateContent?alt=sse"),
        (GEMINI, "https://host/v1", "https://host/v1/models/m:streamGenerateContent?alt=sse"),
        (INTERACTIONS, "https://host", "https://host/v1beta/interactions"),
        (INTERACTIONS, "https://host/v1", "https://host/v1/interactions"),
    ],
)
def test_a_version_at_the_end_of_the_base_url_stands_for_the_paths(dialect: Dialect, base: str, url: str) -> None:
    assert dialect.url(base, "m") == url


class TestLegacyCompletions:
    SETTINGS: ClassVar = {"dialect": OPENAI_COMPLETIONS.name, "api_key": KEY, "model": "m", "proxy": ""}

    def test_continue_a_prompt(self, asking: Asking) -> None:
        with Upstream(answer=ScriptedAnswer(text=["Hello", " world"])) as upstream:
            said = asking(upstream, "Once upon", client={"base_url": upstream.url, **self.SETTINGS})
            sent = json.loads(upstream.requests[0].body)
        assert said.answer.text == "Hello world"
        assert sent["prompt"] == "Once upon"

    @pytest.mark.parametrize(
        ("messages", "options", "why"),
        [
            ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], {}, "one prompt"),
            ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], {}, "one prompt"),
            ("a", {"tools": [{"type": "function"}]}, "no tools"),
        ],
    )
    def test_know_neither_conversations_nor_tools(self, messages: Any, options: dict[str, Any], why: str) -> None:
        client = unbroken.Client(base_url="http://127.0.0.1:9", **self.SETTINGS)
        with client, pytest.raises(unbroken.UsageError, match=why):
            client.stream(messages, **options)


def test_an_unknown_dialect_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        unbroken.UsageError, match="known are openai-chat, openai-responses, anthropic-messages, gemini, interactions"
    ):
        unbroken.Client(base_url="http://127.0.0.1:9", dialect="klingon")


@pytest.mark.parametrize(("name", "dialect"), [("anthropic", "anthropic-messages"), ("google", "gemini")])
def test_presets_speak_their_own_dialect(name: str, dialect: str) -> None:
    assert unbroken.Client(name, api_key=KEY).provider.dialect == dialect
