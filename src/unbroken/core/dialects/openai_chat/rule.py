"""What the events of a chat completion mean to the rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unbroken.core.dialects.common.choices import ChoicesReader
from unbroken.core.dialects.openai_chat.finish_reasons import FINISH_REASONS
from unbroken.core.payload import filled

# In a JSON string a quotation mark is escaped, so these match keys, never the model's words. JSON may be broken over
# several `data` lines. The indexes tell how many choices there are, which matters where more than one was asked for.
_COLON = rb"(?:\s|data:)*+:(?:\s|data:)*+"
NOTABLE = re.compile(
    rb'"(?:finish_reason"%(c)s"|error"%(c)s[^n]|object"%(c)s"error"|detail"%(c)s|expires_at"%(c)s|index"%(c)s[1-9])'
    rb"|\[DONE\]|event: ?error" % {b"c": _COLON}
)


class ChatReader(ChoicesReader):
    """What the events of one attempt mean to the rule."""

    finish_reasons = FINISH_REASONS

    def speaks(self, choice: Mapping[str, Any]) -> bool:
        """Any filled field of its delta but the role."""
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, dict):
            return True
        return any(filled(value) for name, value in delta.items() if name != "role") or filled(choice.get("text"))

    def finishes(self, choice: Mapping[str, Any]) -> bool:
        """A finish reason. OpenAI's audio has none: its last delta only dates it."""
        delta = choice.get("delta")
        audio = delta.get("audio") if isinstance(delta, dict) else None
        return super().finishes(choice) or (isinstance(audio, dict) and audio.keys() == {"expires_at"})
