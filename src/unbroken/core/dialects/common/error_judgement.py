"""What an error means: whether it may pass, and when, judged by its names, its codes and its words together.

Sources: OpenAI API reference, "Error codes"; OpenRouter docs, "Errors"; DeepSeek API docs, "Error codes"; Google's
``google.rpc.Status`` and ``RetryInfo``; Zhipu's BigModel docs, "Error codes" (``1113``: in arrears; ``1308`` to
``1310``: the plan's limit is reached); Moonshot docs, "Errors" (``exceeded_current_quota_error``); one-api and its
forks; the reports of continue #11823 and #10297; vLLM, SGLang, llama.cpp and FastAPI, as recorded in ``tests/corpora``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbroken.core.dialects.common.error_shapes import words
from unbroken.core.events import Failed
from unbroken.core.patterns import LazyPattern
from unbroken.core.payload import dicts, mapping

_EXHAUSTED = frozenset(
    {"insufficient_quota", "insufficient_balance", "insufficient_user_quota", "insufficient_credits", "arrearage"}
    | {"billing_hard_limit_reached", "billing_not_active", "exceeded_current_quota_error", "quota_exhausted"}
    | {"usage_limit_reached", "usage_not_included", "credit_balance_exhausted", "payment_required"}
    | {"1113", "1308", "1309", "1310"}
)
"""Error types and codes, in lower case, that mean an exhausted quota or balance, regardless of the status."""

_EXHAUSTED_WORDS = LazyPattern(
    r"insufficient (?:account |user |your )?(?:balance|quota|credit|fund)|not enough credits?|no (?:more )?credits"
    r"|(?:used|consumed) (?:up )?all (?:of )?(?:your |the )?(?:available )?credits|credits? (?:balance )?(?:is|are|has)"
    r" (?:depleted|exhausted|too low)|out of credits|(?:per|a)[-_ ]day\b|daily (?:\w+ )?(?:limit|quota)"
    r"|(?:monthly|weekly) (?:\w+ )?(?:limit|quota)|spending (?:limit|cap)|check your (?:plan|account) and billing"
    r"|billing details|account (?:is|has been) (?:suspended|disabled|deactivated)|top up|recharge|usage limit"
    r"|余额不足|余额已|欠费|充值|额度不足|额度已|配额已|资源包",
    re.I,
)

_TRANSIENT_NAMES = LazyPattern(
    r"overloaded|rate.?(limit|quota)|throttl|too.?many.?requests|server.?error|internal|unavailable|timeout|timed.?out"
    r"|capacity|try.?again|slow.?down|bad.?gateway|upstream|engine|provider.?(error|disconnect)|busy",
    re.I,
)
"""Types and codes of errors that may pass."""

_PERMANENT_NAMES = LazyPattern(
    r"invalid|bad.?request|auth|permission|forbidden|denied|not.?found|unsupported|context.?length|content|moderation"
    r"|policy|billing|parameter",
    re.I,
)
"""Types and codes of errors that do not pass, unless the message is unmistakable."""

_UNMISTAKABLE = LazyPattern(
    r"rate.?limit|too many requests|overloaded|throttl|\bqps\b|requests? limit|try again (later|in)|retry (later|after)"
    r"|temporarily|限流|限速|频率|繁忙|稍后|过载|并发",
    re.I,
)
"""Messages of errors that pass, whatever their name."""

_TRANSIENT_WORDS = LazyPattern(
    _UNMISTAKABLE.pattern + r"|server.?error|internal error|unavailable|time(d.?)?.?out|capacity|try.?again|slow down"
    r"|bad.?gateway|upstream|engine|provider.?(error|disconnect)|\bbusy\b|concurren|重试|超时|请求过多",
    re.I,
)
"""Messages of errors that pass, unless their name says otherwise."""

_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})


def failed(error: Mapping[str, Any], status: int | None = None) -> Failed:
    """Convert an error to a :class:`Failed`; an unknown one is permanent unless its status says otherwise."""
    message = words(error)
    names = [name for key in ("type", "code", "status") if (name := _name(error.get(key)))]
    kinds = [name for name in names if " " not in name]
    kind = next((name for name in kinds if not name.isdecimal()), kinds[0] if kinds else "")
    codes = [int(name) for name in names if len(name) == 3 and name.isdecimal()] + ([status] if status else [])
    delay = _delay(error, message)
    # A daily limit that refills by the second says when: words alone do not tell it from a spent balance.
    exhausted = not _EXHAUSTED.isdisjoint(name.lower() for name in names) or (
        delay is None and bool(_EXHAUSTED_WORDS.search(message))
    )
    transient = not exhausted and _may_pass(codes, names, message)
    shown = message or (f"HTTP {status}" if status else "the provider reported an error")
    return Failed(shown, kind, transient, delay if transient else None)


def _may_pass(codes: Sequence[int], names: Sequence[str], message: str) -> bool:
    if codes:
        passing = any(code in _TRANSIENT_STATUSES or 500 <= code <= 599 for code in codes)
        return passing or bool(_UNMISTAKABLE.search(message))
    if any(_TRANSIENT_NAMES.search(name) for name in names):
        return True
    told = _UNMISTAKABLE if any(_PERMANENT_NAMES.search(name) for name in names) else _TRANSIENT_WORDS
    return bool(told.search(message))


def _name(value: object) -> str:
    if isinstance(value, bool):
        return ""
    if isinstance(value, int) and abs(value) < 10**9:  # a code; Python refuses to format very long integers
        return str(value)
    return value.strip() if isinstance(value, str) else ""


# When it passes

_UNITS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "秒": 1.0, "分": 60.0}
_AMOUNT = r"\d{1,6}(?:\.\d{1,9})?\s*(?:milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|秒|分钟?)?"
_DELAY = LazyPattern(
    r"(?:(?:try again|retry\w*|available|resets?)\b[^.\d]{0,40}?\b(?:in|after|for)|\bwait(?: for| at least| about)*)"
    rf"[: ]\s*(?:about |another )?(?P<amounts>(?:{_AMOUNT}\s*)+)(?![-/:\d])|(?P<before>{_AMOUNT})\s*(?:之?后|後)",
    re.I,
)
_PIECE = LazyPattern(r"(\d{1,6}(?:\.\d{1,9})?)\s*(ms|milli|[smh秒分])?", re.I)
_DELAY_FIELDS = {"retry_after": 1.0, "retry_after_seconds": 1.0, "retryAfter": 1.0, "retry_after_ms": 0.001}


def _delay(error: Mapping[str, Any], message: str) -> float | None:
    """Return the seconds after which an error says that it passes: in a field, or in its words; ``None`` without."""
    for delay in _named_delays(error):
        return delay
    found = _DELAY.search(message)
    return _seconds(found["amounts"] or found["before"]) if found else None


def _named_delays(error: Mapping[str, Any]) -> Iterator[float]:
    for place in (error, mapping(error.get("metadata"))):
        for name, unit in _DELAY_FIELDS.items():
            value = place.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 10**9:
                yield value * unit
            elif isinstance(value, str) and _PIECE.match(value.strip()):
                yield _seconds(value) * unit
    for detail in dicts(error.get("details")):  # google.rpc.RetryInfo
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and _PIECE.match(delay):
            yield _seconds(delay)


def _seconds(amounts: str) -> float:
    """Return the seconds of amounts such as ``1m26.4s``, ``20 seconds`` or ``3``."""
    return sum(float(number) * _UNITS[unit.lower() or "s"] for number, unit in _PIECE.findall(amounts))
