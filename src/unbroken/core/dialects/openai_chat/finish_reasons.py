"""The meanings of the finish reasons of chat completions.

Sources: OpenAI API reference, "The chat completion chunk object"; DeepSeek API docs, "Create chat completion";
OpenRouter docs, "Errors" (``error``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.dialect import FinishMeaning

FINISH_REASONS: Mapping[str, FinishMeaning] = MappingProxyType(
    {
        "stop": FinishMeaning.WHOLE,
        "tool_calls": FinishMeaning.WHOLE,
        "function_call": FinishMeaning.WHOLE,
        "length": FinishMeaning.LENGTH,
        "content_filter": FinishMeaning.FILTERED,
        "error": FinishMeaning.FAILED,  # OpenRouter
        "insufficient_system_resource": FinishMeaning.FAILED,  # DeepSeek
    }
)
"""The meanings by the provider's finish reason."""
