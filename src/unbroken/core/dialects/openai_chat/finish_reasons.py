"""The meanings of the finish reasons of chat completions.

Sources: OpenAI API reference, "The chat completion chunk object"; Mistral API docs, "Chat completion"
(``model_length``); Zhipu BigModel docs, "Chat completions" (``sensitive``, ``model_context_window_exceeded``); Hugging
Face TGI, ``FinishReason`` (``eos_token``, ``stop_sequence``); Together docs, "Chat completions" (``eos``); Cohere API
docs, "Chat" (``complete``, ``max_tokens``, ``error_toxic``); Anthropic's and Amazon Bedrock's stop reasons, as gateways
hand them on (``end_turn``, ``tool_use``, ``guardrail_intervened``); Google's OpenAI compatibility (``content_filter:
RECITATION``, ``function_call_filter: MALFORMED_FUNCTION_CALL``). Failing ones are in :mod:`..common.finish_reasons`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.dialect import FinishMeaning
from unbroken.core.dialects.common.finish_reasons import FAILING

_WHOLE = ("stop", "tool_calls", "tool_call", "tool-calls", "function_call", "tool_use", "end_turn", "stop_sequence")
_LENGTH = ("length", "max_tokens", "model_length", "model_context_window_exceeded", "context_length_exceeded")
_FILTERED = ("content_filter", "content-filter", "sensitive", "safety", "recitation", "refusal", "content_filtered")

FINISH_REASONS: Mapping[str, FinishMeaning] = MappingProxyType(
    {
        **FAILING,
        **dict.fromkeys([*_WHOLE, "eos", "eos_token", "complete", "completed", "normal"], FinishMeaning.WHOLE),
        **dict.fromkeys([*_LENGTH, "repetition_truncation"], FinishMeaning.LENGTH),
        **dict.fromkeys([*_FILTERED, "guardrail_intervened", "error_toxic"], FinishMeaning.FILTERED),
        **dict.fromkeys(["function_call_filter", "pause_turn", "load"], FinishMeaning.STOPPED),
    }
)
"""The meanings by the provider's finish reason, in lower case."""
