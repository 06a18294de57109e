"""The meanings of the endings of a response: its status, or the reason why it is incomplete.

Source: OpenAI API reference, "The response object" (``status``, ``incomplete_details.reason``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.dialect import FinishMeaning

FINISH_REASONS: Mapping[str, FinishMeaning] = MappingProxyType(
    {
        "completed": FinishMeaning.WHOLE,
        "incomplete": FinishMeaning.LENGTH,
        "max_output_tokens": FinishMeaning.LENGTH,
        "max_messages": FinishMeaning.LENGTH,
        "content_filter": FinishMeaning.FILTERED,
        "failed": FinishMeaning.FAILED,
        "cancelled": FinishMeaning.FAILED,
    }
)
"""The meanings by the provider's status or reason."""
