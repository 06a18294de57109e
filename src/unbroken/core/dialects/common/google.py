"""What Google's errors mean, in either of its formats: generateContent and Interactions.

Sources: ``google.rpc.Status``, ``google.rpc.Code`` and ``QuotaFailure``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.events import Failed
from unbroken.core.payload import dicts, text

_TRANSIENT = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"})
_SPENT_WORDS = re.compile(r"credits are depleted|limit: 0\b", re.I)
_KEY = re.compile(r"api_key:[^\s'\"]+|AIza[\w-]{8,}")


def judged(error: Mapping[str, Any], status: int | None = None) -> Failed:
    """Convert an error to a :class:`Failed`, without the key that it may quote (``Consumer 'api_key:...' ...``).

    Waiting does not restore a daily quota, whatever delay the error proposes; it does restore a quota per minute.
    """
    said = failed(error, status)
    transient = said.transient or (status is None and said.kind.upper() in _TRANSIENT)
    spent = bool(_SPENT_WORDS.search(said.message)) or any("PerDay" in quota for quota in _quotas(error))
    shown = _KEY.sub("api_key:...", said.message)
    return Failed(shown, said.kind, transient=False) if spent else Failed(shown, said.kind, transient, said.retry_after)


def _quotas(error: Mapping[str, Any]) -> Iterator[str]:
    for detail in dicts(error.get("details")):
        for violation in dicts(detail.get("violations")):
            yield text(violation.get("quotaId"))
