"""The meaning of a chat completion's events to the rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.core.dialects.common.choices import ChoicesReader
from unbroken.core.dialects.common.notable import Notable
from unbroken.core.dialects.openai_chat.finish_reasons import FINISH_REASONS
from unbroken.core.payload import filled

NOTABLE = Notable(
    [rb'"finish_reason"%(c)s"', rb'"index"%(c)s[1-9]'],  # indexes show how many choices there are
    rb'"(?:error"%(c)s[^n]|object"%(c)s"error"|(?:%(keys)s|detail|code)"%(c)s|message"%(c)s"|expires_at"%(c)s)'
    rb"|\[DONE\]|event: ?error\n",
    rare=[b'expires_at"'],
)


class ChatReader(ChoicesReader):
    """A reader of one attempt's events, for their meaning to the rule."""

    finish_reasons = FINISH_REASONS

    def speaks(self, choice: Mapping[str, Any]) -> bool:
        """Return whether its delta has a filled field other than the role."""
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, dict):
            return True
        return any(filled(value) for name, value in delta.items() if name != "role") or filled(choice.get("text"))

    def finish_of(self, choice: Mapping[str, Any]) -> str:
        """Return its finish reason. OpenAI's audio has none: its last delta has only ``expires_at``."""
        delta = choice.get("delta")
        audio = delta.get("audio") if isinstance(delta, dict) else None
        is_last_of_audio = isinstance(audio, dict) and audio.keys() == {"expires_at"}
        return super().finish_of(choice) or ("stop" if is_last_of_audio else "")
