"""The meanings of the endings of a response: its status, or the reason why it is incomplete.

Source: OpenAI API reference, "The response object" (``status``, ``incomplete_details.reason``). The failing ones of
gateways are in :mod:`..common.finish_reasons`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.dialect import FinishMeaning
from unbroken.core.dialects.common.finish_reasons import FAILING

FINISH_REASONS: Mapping[str, FinishMeaning] = MappingProxyType(
    {
        **FAILING,
        **dict.fromkeys(["completed", "stop", "tool_calls"], FinishMeaning.WHOLE),
        **dict.fromkeys(
            ["incomplete", "max_output_tokens", "max_messages", "max_tokens", "length"], FinishMeaning.LENGTH
        ),
        **dict.fromkeys(["content_filter", "safety"], FinishMeaning.FILTERED),
    }
)
"""The meanings by the provider's status or reason."""
