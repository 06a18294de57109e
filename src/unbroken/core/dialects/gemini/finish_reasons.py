"""The meanings of the finish reasons of candidates, and of the reasons for which a prompt is blocked.

None of Google's reports a failure of the provider: they say what the model did, or what stopped it. Gateways that speak
this format hand on failing ones (:mod:`..common.finish_reasons`).

Sources: Gemini API reference, "Candidate: FinishReason" and "PromptFeedback: BlockReason"; Vertex AI reference,
"FinishReason" (``MODEL_ARMOR``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.dialect import FinishMeaning
from unbroken.core.dialects.common.finish_reasons import FAILING

_FILTERED = (
    *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "JAILBREAK"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
)
_STOPPED = (
    *("LANGUAGE", "OTHER", "IMAGE_OTHER", "NO_IMAGE", "MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE"),
    *("UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"),
)

FINISH_REASONS: Mapping[str, FinishMeaning] = MappingProxyType(
    {
        **FAILING,
        "STOP": FinishMeaning.WHOLE,
        "MAX_TOKENS": FinishMeaning.LENGTH,
        **dict.fromkeys(_FILTERED, FinishMeaning.FILTERED),
        **dict.fromkeys(_STOPPED, FinishMeaning.STOPPED),
    }
)
"""The meanings by the provider's finish reason."""
