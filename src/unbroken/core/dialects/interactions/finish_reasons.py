"""The meanings of the statuses with which an interaction ends.

``requires_action`` ends it with function calls for the caller to run, ``requires_continuation`` where one request has
reached its limit of tokens and another may go on. ``failed`` and ``cancelled`` are failures, as in every dialect
(:mod:`..common.finish_reasons`).

Sources: Gemini API reference, "Interaction: status"; the types of the ``google-genai`` SDK 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.dialect import FinishMeaning
from unbroken.core.dialects.common.finish_reasons import FAILING

WHOLE = ("completed", "requires_action")
LIMITED = ("incomplete", "budget_exceeded", "requires_continuation")

FINISH_REASONS: Mapping[str, FinishMeaning] = MappingProxyType(
    {
        **FAILING,
        **dict.fromkeys(WHOLE, FinishMeaning.WHOLE),
        **dict.fromkeys(LIMITED, FinishMeaning.LENGTH),
    }
)
"""The meanings by the provider's status."""
