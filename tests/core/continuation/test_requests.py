"""The request for the rest of an answer, in each style, and the answers for which none is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from properties.continuing import SERVERS, play
from unbroken.core.continuation.format import Style
from unbroken.core.dialects.common.claude import refusal_of_prefill
from unbroken.core.policy import Policy
from unbroken.core.providers import PROVIDERS
from unbroken.errors import StreamCut, UsageError
from unbroken.lab import Continuation, ScriptedAnswer

USER = {"role": "user", "content": "Once upon a time"}
WORDS = ("The", " tide", " goes", " out", " and", " comes", " in", ".")
ANSWER = ScriptedAnswer(text=WORDS)
CHAT_CUT = 0.6
"""A part of the answer's bytes after which text has come, in every dialect, and more is to come."""


def continued(style: Style, **more: Any) -> Any:
    server = Continuation(style, prompt="Once upon a time", takes_space=style != "assistant")
    return play(ANSWER, server, [CHAT_CUT], style=style, **more)


@pytest.mark.parametrize("style", ["prefix", "continue_final_message", "assistant", "completion"])
def test_the_rest_is_asked_for_in_the_servers_style(style: Style) -> None:
    played = continued(style, temperature=0.5, max_tokens=100)
    assert played.text == "".join(WORDS)
    first, second = played.bodies
    seam = played.report.seams[0]
    so_far = "".join(WORDS)[: seam.character]
    message = {"role": "assistant", "content": so_far}
    expected: dict[str, Any] = {
        "prefix": {"messages": [USER, message | {"prefix": True}]},
        "continue_final_message": {
            "messages": [USER, message],
            "continue_final_message": True,
            "add_generation_prompt": False,
        },
        "assistant": {"messages": [USER, message]},
        "completion": {"prompt": "Once upon a time" + so_far},
    }[style]
    assert second == first | expected | {"max_tokens": 100 - seam.output_before}
    assert (seam.attempt, seam.counted) == (2, "pieces")
    assert seam.output_before == len([word for word in WORDS if so_far.find(word) >= 0])


def test_a_server_that_counts_is_believed() -> None:
    """vLLM's ``continuous_usage_stats`` tells the tokens with each piece."""

    class Counting(type(SERVERS["prefix"][0])):  # type: ignore[misc]
        def pieces(self, answer: ScriptedAnswer, number: int) -> Any:
            pieces = super().pieces(answer, number)
            told = []
            for count, event in enumerate(pieces.told, 1):
                chunk = json.loads(event.removeprefix(b"data: "))
                told.append(
                    b"data: " + json.dumps(chunk | {"usage": {"completion_tokens": 3 * count}}).encode() + b"\n\n"
                )
            return type(pieces)(pieces.prelude, [], told, pieces.finish, pieces.usage, pieces.done)

    dialect = (Counting(), *SERVERS["prefix"][1:])
    played = play(ANSWER, Continuation("prefix"), [0.5], style="prefix", dialect=dialect, max_completion_tokens=90)
    seam = played.report.seams[0]
    assert seam.counted == "tokens"
    assert seam.output_before % 3 == 0
    assert played.bodies[1]["max_completion_tokens"] == 90 - seam.output_before


def test_deepseek_is_asked_under_its_beta_path() -> None:
    played = continued("prefix", host="https://api.deepseek.com")
    assert played.urls == [
        "https://api.deepseek.com/v1/chat/completions",
        "https://api.deepseek.com/beta/chat/completions",
    ]


def test_a_style_is_known_of_a_provider_by_its_host_and_of_nobody_else() -> None:
    known = play(ANSWER, Continuation("prefix"), [CHAT_CUT], style=None, host="https://api.deepseek.com")
    assert known.error is None or "assistant" not in known.bodies[-1]
    chat = SERVERS["prefix"]
    deepseek = play(
        ANSWER, Continuation("prefix"), [CHAT_CUT], style=None, host="https://api.deepseek.com", dialect=chat
    )
    assert deepseek.text == "".join(WORDS)
    for host in ("https://llm.example.com", "http://127.0.0.1:8080"):
        unknown = play(ANSWER, Continuation("prefix"), [CHAT_CUT], style=None, host=host, dialect=chat)
        assert isinstance(unknown.error, StreamCut)
        assert len(unknown.bodies) == 1
        assert all(word in str(unknown.error) for word in ("continuation=", "--continuation", "upstream"))


def test_the_presets_have_the_styles_that_their_providers_document() -> None:
    styles = {name: preset.continuation for name, preset in PROVIDERS.items() if preset.continuation}
    assert styles == {
        "deepseek": "prefix",
        "mistral": "prefix",
        "anthropic": "assistant",
        "openrouter": "assistant",
        "groq": "assistant",
        "llama.cpp": "assistant",
    }
    assert [name for name, preset in PROVIDERS.items() if preset.echoes] == ["mistral"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"n": 2}, "several choices"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"grammar": "root ::= x"}, "grammar"),
        ({"guided_json": {"type": "object"}}, "guided_json"),
        ({"messages": [USER, {"role": "assistant", "content": "The"}]}, "ends with a message of the assistant"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"max_tokens": 2}, "max_tokens were used up"),
        ({"stop": ["\n\n", " and so on"]}, "stop sequence"),
        ({"model": "anthropic/claude-opus-4.6"}, "claude-opus-4.6 does not continue"),
        ({"model": "anthropic/claude-sonnet-4.5", "reasoning": {"effort": "high"}}, "thinking on"),
    ],
)
def test_what_cannot_be_continued_exactly_fails_as_before_and_says_why(fields: dict[str, Any], why: str) -> None:
    chat = SERVERS["prefix"]
    played = play(ANSWER, Continuation("assistant"), [0.58], style="assistant", dialect=chat, **fields)
    assert isinstance(played.error, StreamCut)
    assert len(played.bodies) == 1
    assert "not continued: " in str(played.error)
    if "stop" not in fields:
        assert why in str(played.error)


@pytest.mark.parametrize(
    ("stop", "refused"), [("x", False), (".", False), (" and more", True), ("\n\n", False), ("d then", True)]
)
def test_a_stop_sequence_that_could_span_the_seam_is_refused(stop: str, refused: bool) -> None:
    answer = ScriptedAnswer(text=("The tide goes out and", " comes in, and so on and on and on for ever."))
    played = play(
        answer, Continuation("prefix"), [0.62], style="prefix", dialect=SERVERS["prefix"], stop=[stop, "unheard of"]
    )
    assert (played.error is not None) is refused
    assert not refused or "stop sequence" in str(played.error)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking on"),
        ({"thinking": {"type": "adaptive"}}, "thinking on"),
        ({"model": "claude-opus-4-6"}, "does not continue"),
        ({"stop_sequences": [" out loud", " and then", " comes first", " goes away", " tides", " in.."]}, "stop"),
    ],
)
def test_what_anthropic_does_not_continue_is_not_sent(fields: dict[str, Any], why: str) -> None:
    played = continued("assistant", **fields)
    assert len(played.bodies) == 1
    assert why in str(played.error)


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("claude-3-haiku-20240307", True),
        ("claude-3-5-sonnet-20241022", True),
        ("claude-3-7-sonnet-latest", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-opus-4-1-20250805", True),
        ("claude-haiku-4-5", True),
        ("claude-sonnet-4-5@20250929", True),
        ("claude-2.1", True),
        ("claude-opus-4-6", False),
        ("claude-sonnet-4-6", False),
        ("us.anthropic.claude-opus-4-6-v1", False),
        ("anthropic/claude-opus-4.7", False),
        ("claude-sonnet-5", False),
        ("claude-opus-5-20260901", False),
        ("https://x.example/publishers/anthropic/models/claude-opus-4-6:streamRawPredict", False),
        ("smollm2", True),
    ],
)
def test_which_of_anthropics_models_take_a_prefill(model: str, takes: bool) -> None:
    assert (refusal_of_prefill(model, thinks=False) == "") is takes


def test_white_space_at_the_end_is_not_sent_to_anthropic_and_must_come_again() -> None:
    answer = ScriptedAnswer(text=("The tide goes out.", "\n\n", "Then it comes in."))
    for cut in (0.55, 0.6, 0.65):
        played = play(answer, Continuation("assistant", takes_space=False), [cut], style="assistant")
        assert played.text == "".join(answer.tokens)
        assert all(not body["messages"][-1]["content"].endswith("\n") for body in played.bodies)
    played = play(answer, Continuation("assistant", "drops_space", takes_space=False), [0.65], style="assistant")
    assert played.text == "The tide goes out.\n\n"
    assert "white space" in str(played.error)


def test_a_tool_call_that_begins_after_the_seam_is_handed_on_behind_the_text() -> None:
    for style in ("assistant", "prefix"):
        dialect = SERVERS[style]  # type: ignore[index]
        played = play(
            ANSWER,
            Continuation(style, "calls_a_tool"),
            [CHAT_CUT],
            style=style,
            dialect=dialect,  # type: ignore[arg-type]
        )
        assert played.error is None
        [call] = played.tool_calls
        assert call.name == "look"
        assert call.index == (1 if style == "assistant" else 0)


@pytest.mark.parametrize("reasoning", [("Let me", " think.")])
def test_an_answer_with_closed_reasoning_is_continued_and_reasoning_under_way_is_not(reasoning: Any) -> None:
    answer = ScriptedAnswer(text=WORDS, reasoning=reasoning)
    chat = SERVERS["prefix"]
    closed = play(answer, Continuation("prefix"), [0.7], style="prefix", dialect=chat)
    assert closed.text == "".join(WORDS)
    assert closed.bodies[1]["messages"][-1]["reasoning_content"] == "Let me think."
    under_way = play(answer, Continuation("prefix"), [0.25], style="prefix", dialect=chat)
    assert len(under_way.bodies) == 1
    assert "no text had come" in str(under_way.error)


def test_a_tool_call_that_had_begun_is_not_continued() -> None:
    answer = ScriptedAnswer(text=("Let me look.",), tool_calls=[("call_1", "look", ['{"at":', " 1}"])])
    played = play(answer, Continuation("prefix"), [0.7], style="prefix", dialect=SERVERS["prefix"])
    assert "a tool call had begun" in str(played.error)


@pytest.mark.parametrize(
    ("manner", "why"),
    [
        ("reasons", "begins with reasoning"),
        ("refuses", "HTTP 400"),
        ("overlaps", "repeats the end"),
        ("begins_anew", "begins anew"),
    ],
)
def test_a_server_that_does_not_go_on_is_a_cut_and_nothing_of_it_is_shown(manner: Any, why: str) -> None:
    text = "".join(f"The {number}th tide goes out and in. " for number in range(20))
    answer = ScriptedAnswer(text=text)
    dialect = SERVERS["prefix"]
    played = play(answer, Continuation("prefix", manner), [0.8], style="prefix", dialect=dialect)
    assert type(played.error) is StreamCut
    assert why in str(played.error)
    assert len(played.bodies) == 2
    assert text.startswith(played.text)
    assert len(played.text) > 100


def test_an_echo_of_the_whole_is_dropped() -> None:
    text = "".join(f"The {number}th tide goes out and in. " for number in range(20))
    played = play(ScriptedAnswer(text=text), Continuation("prefix", "echoes"), [0.3, 0.8, 0.7], style="prefix")
    assert played.text == text
    assert len(played.report.seams) == 3


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"headers": ((b"Content-Digest", b"sha-256=:x:"),)}, "signed"),
        ({"headers": ((b"authorization", b"AWS4-HMAC-SHA256 Credential=x"),)}, "signed"),
        ({"temperature": float("nan")}, "not strict JSON"),
    ],
)
def test_a_request_that_cannot_be_changed_is_not(more: dict[str, Any], why: str) -> None:
    assert why in str(continued("prefix", **more).error)


def test_a_key_that_names_the_first_request_is_not_sent_with_the_second() -> None:
    played = continued("prefix", headers=((b"Idempotency-Key", b"one"), (b"authorization", b"Bearer x")))
    assert played.headers == [
        {b"Idempotency-Key": b"one", b"authorization": b"Bearer x"},
        {b"authorization": b"Bearer x"},
    ]


def test_what_is_no_choice_is_refused() -> None:
    with pytest.raises(UsageError, match="after_output cannot be 'again': it must be raise, continue or restart"):
        Policy(after_output="again")  # type: ignore[arg-type]
