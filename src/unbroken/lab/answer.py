"""The answer that the upstream sends when nothing goes wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Framing = Literal["chunked", "length", "close"]
"""How an HTTP/1.1 body ends: with a last chunk, after Content-Length bytes, or with the connection."""


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """One answer of the model, and the pace at which it is sent.

    Args:
        text: the tokens of the answer; a plain string is split into words.
        reasoning: tokens of reasoning, sent before the text.
        tool_calls: tool calls, each as (id, name, fragments of the JSON arguments), sent after the text.
        think: seconds of silence before the answer.
        think_at: where that silence is; "after_headers" is before the prelude.
        comments: how many heartbeats (``: keep-alive`` comments, Anthropic's pings; Gemini has none) are sent before
            the prelude, spread evenly over the silence if it is there.
        gap: seconds between tokens (of reasoning, text and tool calls alike).
        finish_reason: how the answer ended, in OpenAI's terms; other dialects translate them.
        usage: OpenAI's ``usage``; in a chat it is sent in a chunk of its own with empty choices, as with
            ``stream_options.include_usage``; None: not sent (or zero, if a dialect requires it).
        done: whether the terminator (``[DONE]``, ``message_stop``) is sent, in the dialects that have one.
        framing: how the body ends over HTTP/1.1.
        model: the name of the model.
    """

    text: str | Sequence[str] = ("Hello", " from", " the", " lab", ".")
    reasoning: Sequence[str] = ()
    tool_calls: Sequence[tuple[str, str, Sequence[str]]] = ()
    think: float = 0.0
    think_at: Literal["before_headers", "after_headers", "after_role"] = "after_headers"
    comments: int = 0
    gap: float = 0.0
    finish_reason: str = "stop"
    usage: Mapping[str, Any] | None = field(
        default_factory=lambda: {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    )
    done: bool = True
    framing: Framing = "chunked"
    model: str = "lab"

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text as the tokens that are sent; joined, they are the text."""
        if isinstance(self.text, str):
            return tuple(re.findall(r"\s*\S+|\s+$", self.text))
        return tuple(self.text)
