"""The meanings of the stop reasons of messages.

Sources: Anthropic API docs, "Handling stop reasons"; OpenRouter and DeepSeek imitate the format and report their own
failures in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.dialect import FinishMeaning

FINISH_REASONS: Mapping[str, FinishMeaning] = MappingProxyType(
    {
        "end_turn": FinishMeaning.WHOLE,
        "stop_sequence": FinishMeaning.WHOLE,
        "tool_use": FinishMeaning.WHOLE,
        "pause_turn": FinishMeaning.WHOLE,
        "max_tokens": FinishMeaning.LENGTH,
        "error": FinishMeaning.FAILED,  # OpenRouter
        "insufficient_system_resource": FinishMeaning.FAILED,  # DeepSeek
    }
)
"""The meanings by the provider's stop reason."""
