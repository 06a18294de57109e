"""Errors for clients to which the relay cannot give an answer: a gateway's statuses (RFC 9110, section 15.6)."""

from __future__ import annotations

from unbroken.core.dialect import GatewayError
from unbroken.core.failures import described
from unbroken.errors import FirstOutputTimeout, TurnError, UsageError, WireError

STOPPED = GatewayError(503, "relay_stopped", "the relay was stopped", retryable=True)
"""The error if the relay ends before the answer does."""


def gateway_error(error: TurnError | WireError | UsageError) -> GatewayError:
    """Convert the error of a turn, of a request that is passed through, or of settings that cannot be used."""
    match error:
        case FirstOutputTimeout():
            return GatewayError(504, error.code, str(error))
        case TurnError():
            return GatewayError(502, error.code, str(error))
        case WireError():
            return GatewayError(502, error.failure.code, described(error.failure.code, error.detail))
    return GatewayError(500, "misconfigured", str(error))
