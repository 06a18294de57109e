"""Errors for clients to which the relay cannot give an answer: a gateway's statuses (RFC 9110, section 15.6).

After a cut in the middle of an answer many programs ask again by themselves, if they recognise what they see. What they
are sent then is decided here; ``docs/agents.md`` has what each of them does.
"""

from __future__ import annotations

import re

from unbroken.core.dialect import GatewayError
from unbroken.core.failures import Phase, described
from unbroken.errors import FirstOutputTimeout, StreamCut, TurnError, UsageError, WireError

STOPPED = GatewayError(503, "relay_stopped", "the relay was stopped", retryable=True)
"""The error if the relay ends before the answer does."""


def gateway_error(error: TurnError | WireError | UsageError) -> GatewayError:
    """Convert the error of a turn, of a request that is passed through, or of settings that cannot be used."""
    match error:
        case FirstOutputTimeout():
            return GatewayError(504, error.code, str(error))
        case StreamCut(phase=Phase.OUTPUT):  # opencode asks again after an error with these words, whatever its type
            return GatewayError(502, error.code, f"connection lost: {error}")
        case TurnError():
            return GatewayError(502, error.code, str(error))
        case WireError():
            return GatewayError(502, error.failure.code, described(error.failure.code, error.detail))
    return GatewayError(500, "misconfigured", str(error))


_BY_THE_BREAK = re.compile(rb"(?:Go-http-client|QwenCode)/")
"""Programs, by their ``User-Agent``, that ask again after a connection that breaks, and give up after an error event:
Reasonix, and others whose HTTP is Go's own, which reports a body without an end as an error; Qwen Code."""


def needs_no_event(user_agent: bytes) -> bool:
    """Return whether, after a cut behind output, the connection is only closed, without an error event before."""
    return _BY_THE_BREAK.match(user_agent) is not None
