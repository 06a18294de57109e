"""The meanings of the finish reasons of candidates. None of them reports a failure of the provider: they say what the
model did, or what stopped it.

Source: Gemini API reference, "Candidate: FinishReason".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.dialect import FinishMeaning

FINISH_REASONS: Mapping[str, FinishMeaning] = MappingProxyType(
    {
        "STOP": FinishMeaning.WHOLE,
        "MAX_TOKENS": FinishMeaning.LENGTH,
        "SAFETY": FinishMeaning.FILTERED,
    }
)
"""The meanings by the provider's finish reason."""
