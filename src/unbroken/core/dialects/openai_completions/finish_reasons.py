"""The meanings of the finish reasons of legacy completions.

Sources: OpenAI API reference, "The completion object"; DeepSeek API docs, "Create FIM completion"; OpenRouter docs,
"Errors"; Hugging Face TGI, ``FinishReason``. The failing ones are in :mod:`..common.finish_reasons`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.dialect import FinishMeaning
from unbroken.core.dialects.common.finish_reasons import FAILING

FINISH_REASONS: Mapping[str, FinishMeaning] = MappingProxyType(
    {
        **FAILING,
        **dict.fromkeys(["stop", "eos", "eos_token", "stop_sequence", "complete"], FinishMeaning.WHOLE),
        **dict.fromkeys(["length", "max_tokens", "model_length"], FinishMeaning.LENGTH),
        **dict.fromkeys(["content_filter", "sensitive", "safety"], FinishMeaning.FILTERED),
    }
)
"""The meanings by the provider's finish reason, in lower case."""
