"""What the events of a legacy completion mean to the rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unbroken.core.dialects.common.choices import ChoicesReader
from unbroken.core.dialects.openai_completions.finish_reasons import FINISH_REASONS
from unbroken.core.payload import filled, mapping

# In a JSON string quotation marks and line ends are escaped, so these match the protocol, never the model's words. JSON
# may be broken over several `data` lines. The indexes tell how many choices there are, which matters where more than
# one was asked for.
_COLON = rb"(?:\s|data:)*+:(?:\s|data:)*+"
NOTABLE = re.compile(
    rb'"(?:finish_reason"%(c)s"|error"%(c)s[^n\s]|object"%(c)s"error"|detail"%(c)s|index"%(c)s[1-9])'
    rb"|: ?error\n|\[DONE\]\s*\n" % {b"c": _COLON}
)


class CompletionsReader(ChoicesReader):
    """What the events of one attempt mean to the rule."""

    finish_reasons = FINISH_REASONS

    def speaks(self, choice: Mapping[str, Any]) -> bool:
        """Any filled field, here or in what some servers nest as in chat, but for the asides."""
        fields = [*choice.items(), *mapping(choice.get("delta")).items(), *mapping(choice.get("message")).items()]
        return filled([value for name, value in fields if name not in _ASIDES])


_ASIDES = frozenset(
    {"index", "role", "delta", "message", "finish_reason", "native_finish_reason", "stop_reason", "matched_stop"}
    | {"content_filter_results", "content_filter_offsets"}
)
"""Fields of a choice that are not what the model produced."""
