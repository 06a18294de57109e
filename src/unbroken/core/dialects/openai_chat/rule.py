"""The meaning of a chat completion's events to the rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unbroken.core.dialects.common.choices import ChoicesReader
from unbroken.core.dialects.common.error_shapes import ERROR_KEYS
from unbroken.core.dialects.openai_chat.finish_reasons import FINISH_REASONS
from unbroken.core.payload import filled

# In a JSON string a quotation mark is escaped, so these match keys, never the model's words. JSON may be broken over
# several `data` lines. The indexes show how many choices there are, which matters if more than one was requested.
_COLON = rb"(?:\s|data:)*+:(?:\s|data:)*+"
NOTABLE = re.compile(
    rb'"(?:finish_reason"%(c)s"|error"%(c)s[^n]|object"%(c)s"error"|(?:%(keys)s|detail|code)"%(c)s|message"%(c)s"'
    rb'|expires_at"%(c)s|index"%(c)s[1-9])|\[DONE\]|event: ?error' % {b"c": _COLON, b"keys": ERROR_KEYS}
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
