"""The meaning of a chat completion's events to the rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.core.dialect import Signal
from unbroken.core.dialects.common.choices import ChoicesReader, output_in
from unbroken.core.dialects.common.notable import Notable
from unbroken.core.dialects.openai_chat.finish_reasons import FINISH_REASONS
from unbroken.core.payload import filled, mapping

NOTABLE = Notable(
    [rb'"finish_reason"%(c)s"', rb'"index"%(c)s[1-9]'],  # indexes show how many choices there are
    rb'"(?:error"%(c)s[^n]|object"%(c)s"error"|(?:%(keys)s|detail|code)"%(c)s|message"%(c)s"|expires_at"%(c)s)'
    rb"|\[DONE\]|event: ?error\n",
    rare=[b'expires_at"'],
)


class ChatReader(ChoicesReader):
    """A reader of one attempt's events, for their meaning to the rule."""

    finish_reasons = FINISH_REASONS

    def output_of(self, choice: Mapping[str, Any]) -> Signal:
        """Return what the filled fields of its delta are, other than the role."""
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, dict):
            return Signal.OUTPUT
        fields = [(name, value) for name, value in delta.items() if name != "role"]
        said = output_in([*fields, ("text", choice.get("text"))])
        return Signal.REASONING if said and _is_marked(delta) else said

    def finish_of(self, choice: Mapping[str, Any]) -> str:
        """Return its finish reason. OpenAI's audio has none: its last delta has only ``expires_at``."""
        delta = choice.get("delta")
        audio = delta.get("audio") if isinstance(delta, dict) else None
        is_last_of_audio = isinstance(audio, dict) and audio.keys() == {"expires_at"}
        return super().finish_of(choice) or ("stop" if is_last_of_audio else "")


def _is_marked(delta: Mapping[str, Any]) -> bool:
    """Return whether the content is marked as reasoning: by Mistral's pieces, or in Google's ``extra_content``.

    Google sends thoughts as text (Gemini API docs, "OpenAI compatibility"), and signatures in the same place.
    """
    filled_names = {name for name, value in delta.items() if filled(value)} - {"role"}
    google = mapping(mapping(delta.get("extra_content")).get("google"))
    if filled(google) and filled_names <= {"extra_content", "content"}:
        return google.get("thought") is True or "content" not in filled_names
    pieces = delta.get("content")
    if filled_names != {"content"} or not isinstance(pieces, list):
        return False
    return all(isinstance(piece, dict) and piece.get("type") == "thinking" for piece in pieces)
