"""The meaning of a legacy completion's events to the rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.core.dialect import Signal
from unbroken.core.dialects.common.choices import ChoicesReader, output_in
from unbroken.core.dialects.common.notable import Notable
from unbroken.core.dialects.openai_completions.finish_reasons import FINISH_REASONS
from unbroken.core.payload import mapping

NOTABLE = Notable(
    [rb'"finish_reason"%(c)s"', rb'"index"%(c)s[1-9]'],  # indexes show how many choices there are
    rb'"(?:error"%(c)s[^n\s]|object"%(c)s"error"|(?:%(keys)s|detail|code)"%(c)s|message"%(c)s")'
    rb'|: ?error\n|\[DONE\][^"\n]*\n',
)


class CompletionsReader(ChoicesReader):
    """A reader of one attempt's events, for their meaning to the rule."""

    finish_reasons = FINISH_REASONS

    def output_of(self, choice: Mapping[str, Any]) -> Signal:
        """Return what its filled fields other than the :data:`ASIDES` are, and those of its delta or message."""
        fields = [*choice.items(), *mapping(choice.get("delta")).items(), *mapping(choice.get("message")).items()]
        return output_in([(name, value) for name, value in fields if name not in ASIDES])


ASIDES = frozenset(
    {"index", "role", "delta", "message", "finish_reason", "native_finish_reason", "stop_reason", "matched_stop"}
    | {"content_filter_results", "content_filter_offsets"}
)
"""Fields of a choice that are not output of the model."""
