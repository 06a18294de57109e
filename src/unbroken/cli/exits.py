"""Exit codes: what each outcome means to a script, and signals."""

from __future__ import annotations

import contextlib
import signal
from types import FrameType

from unbroken.errors import ProviderError, UnbrokenError, UnexpectedResponse, Unreachable, UsageError

USAGE, REFUSED, LOST, UNREACHABLE = 2, 3, 4, 5
"""A mistake of the user's; refused by the provider; the stream was lost; unreachable or overloaded to the end."""


def exit_code(error: UnbrokenError) -> int:
    """The exit code of an error."""
    match error:
        case UsageError():
            return USAGE
        case ProviderError() if error.retryable:
            spoke = bool(getattr(error.partial, "text", ""))
            return LOST if spoke else UNREACHABLE
        case ProviderError() | UnexpectedResponse():
            return REFUSED
        case Unreachable():
            return UNREACHABLE
    return LOST


def on_sigterm() -> None:
    """Let SIGTERM unwind like Ctrl-C does, so that connections are closed, and exit with 143."""

    def terminate(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal handler's signature
        raise SystemExit(128 + signum)

    with contextlib.suppress(ValueError):  # not the main thread: nobody to signal
        signal.signal(signal.SIGTERM, terminate)
