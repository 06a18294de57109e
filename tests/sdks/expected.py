"""What is to come of every case with Unbroken, written by hand from the rule in the design; never from what was seen.

Until an attempt speaks, nothing of it is shown: what goes wrong before the first token costs a second request and
nothing else. Once it speaks, nothing of it is altered: what goes wrong then is an error, and there is no second
request. Once it has told how it ended, it is over: what goes wrong then goes unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Cell(NamedTuple):
    """What a program comes to, and how many requests the server gets."""

    outcome: str
    requests: int


WHOLE_AT_ONCE = Cell("complete", 1)
WHOLE_AFTER_REPLAY = Cell("complete", 2)
ERROR = Cell("error", 1)

STREAMED: Mapping[str, Cell] = {
    "nothing goes wrong": WHOLE_AT_ONCE,
    "reset before the headers": WHOLE_AFTER_REPLAY,
    "reset before any token": WHOLE_AFTER_REPLAY,
    "close before any token": WHOLE_AFTER_REPLAY,
    "clean end before any token": WHOLE_AFTER_REPLAY,
    "silence before any token": WHOLE_AFTER_REPLAY,
    "reset after the prelude": WHOLE_AFTER_REPLAY,
    "close after the prelude": WHOLE_AFTER_REPLAY,
    "clean end after the prelude": WHOLE_AFTER_REPLAY,
    "silence after the prelude": WHOLE_AFTER_REPLAY,
    "reset after a token": ERROR,
    "close after a token": ERROR,
    "clean end after a token": ERROR,
    "silence after a token": ERROR,
    "reset after settling": WHOLE_AT_ONCE,
    "close after settling": WHOLE_AT_ONCE,
    "clean end after settling": WHOLE_AT_ONCE,
    "silence after settling": WHOLE_AT_ONCE,
    "transient error in the stream": WHOLE_AFTER_REPLAY,
    "permanent error in the stream": ERROR,
    "429 with Retry-After": WHOLE_AFTER_REPLAY,
    "400": ERROR,
}

NOT_STREAMED: Mapping[str, Cell] = {
    "nothing goes wrong": WHOLE_AT_ONCE,
    "reset before the headers": WHOLE_AFTER_REPLAY,
    # Nothing is handed on before the body is whole, so there is no "after a token": all of it can be asked for again.
    "reset before any token": WHOLE_AFTER_REPLAY,
    "close before any token": WHOLE_AFTER_REPLAY,
    "clean end before any token": WHOLE_AFTER_REPLAY,
    "silence before any token": WHOLE_AFTER_REPLAY,
    "reset after a token": WHOLE_AFTER_REPLAY,
    "close after a token": WHOLE_AFTER_REPLAY,
    "clean end after a token": WHOLE_AFTER_REPLAY,
    "silence after a token": WHOLE_AFTER_REPLAY,
    # All of the JSON has come, but HTTP says that the body is not whole.
    "reset after settling": WHOLE_AFTER_REPLAY,
    "close after settling": WHOLE_AFTER_REPLAY,
    "clean end after settling": WHOLE_AT_ONCE,
    "silence after settling": WHOLE_AFTER_REPLAY,
    "429 with Retry-After": WHOLE_AFTER_REPLAY,
    "400": ERROR,
}

SDKS: Mapping[str, Mapping[str, Mapping[str, Cell]]] = {
    "openai": {
        "openai chat": STREAMED,
        "openai chat, async": STREAMED,
        "openai chat .stream()": STREAMED,
        "openai chat .stream(), async": STREAMED,
        "openai responses": STREAMED,
        "openai responses, async": STREAMED,
        "openai completions": STREAMED,
        "openai chat, not streamed": NOT_STREAMED,
    },
    "anthropic": {
        "anthropic": STREAMED,
        "anthropic, async": STREAMED,
        "anthropic .stream()": STREAMED,
        "anthropic .stream(), async": STREAMED,
        "anthropic, not streamed": NOT_STREAMED,
    },
    "google-genai": {
        "google-genai": STREAMED,
        "google-genai, async": STREAMED,
        "google-genai, not streamed": NOT_STREAMED,
        "google-genai interactions": STREAMED,
        "google-genai interactions, async": STREAMED,
        "google-genai interactions, not streamed": NOT_STREAMED,
    },
    "mistralai": {"mistralai chat.stream": STREAMED, "mistralai chat.stream, async": STREAMED},
    "groq": {"groq": STREAMED, "groq, async": STREAMED},
    "litellm": {"litellm": STREAMED, "litellm, async": STREAMED},
    "langchain-openai": {"langchain-openai": STREAMED, "langchain-openai, async": STREAMED},
    "langchain-anthropic": {"langchain-anthropic": STREAMED, "langchain-anthropic, async": STREAMED},
    "pydantic-ai": {
        "pydantic-ai, OpenAI chat": STREAMED,
        "pydantic-ai, OpenAI responses": STREAMED,
        "pydantic-ai, Anthropic": STREAMED,
    },
    "openai-agents": {"openai-agents, responses": STREAMED, "openai-agents, chat": STREAMED},
    "instructor": {"instructor create_partial": STREAMED, "instructor create, not streamed": NOT_STREAMED},
}
"""Every SDK's ways of asking, and what is to come of each."""

NOTES: Mapping[str, str] = {}
"""Where an SDK makes the rule impossible: the way of asking, and why."""
