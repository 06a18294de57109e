"""The meanings of the stop reasons of messages.

Sources: Anthropic API docs, "Handling stop reasons"; Amazon Bedrock docs, "Converse" (``guardrail_intervened``,
``content_filtered``); Zhipu's, OpenRouter's and DeepSeek's imitations of the format, which hand on reasons of their own
or of OpenAI's format. The failing ones are in :mod:`..common.finish_reasons`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.dialect import FinishMeaning
from unbroken.core.dialects.common.finish_reasons import FAILING

FINISH_REASONS: Mapping[str, FinishMeaning] = MappingProxyType(
    {
        **FAILING,
        **dict.fromkeys(["end_turn", "stop_sequence", "tool_use", "stop", "tool_calls"], FinishMeaning.WHOLE),
        **dict.fromkeys(["max_tokens", "model_context_window_exceeded", "length"], FinishMeaning.LENGTH),
        **dict.fromkeys(
            ["refusal", "content_filter", "content_filtered", "guardrail_intervened", "sensitive"],
            FinishMeaning.FILTERED,
        ),
        **dict.fromkeys(["pause_turn", "compaction"], FinishMeaning.STOPPED),
    }
)
"""The meanings by the provider's stop reason, in lower case."""
