"""Exit codes: what each outcome means to a script, and signals."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType

from unbroken.errors import MissingExtra, ProviderError, UnbrokenError, UnexpectedResponse, Unreachable, UsageError

UNWRITABLE, USAGE, REFUSED, LOST, UNREACHABLE = 1, 2, 3, 4, 5
"""The answer could not be written; the user's mistake; refused by the provider; the stream was lost; the provider was
unreachable or overloaded to the end."""

CLOSED = 141
"""The reader of stdout closed it; the code that a shell shows for a program that SIGPIPE ended."""


class Interrupted(SystemExit):
    """The exit after SIGINT or SIGTERM: the stack unwinds, so that connections are closed, and the program exits."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class OutputError(UnbrokenError):
    """The answer cannot be written."""

    def __init__(self, cause: OSError) -> None:
        self.closed = isinstance(cause, BrokenPipeError)
        reason = (
            "stdout was closed, so the turn was ended" if self.closed else f"cannot write the answer: {cause.strerror}"
        )
        super().__init__(reason)


def exit_code(error: UnbrokenError) -> int:
    """Return the exit code of an error."""
    match error:
        case UsageError() | MissingExtra():
            return USAGE
        case OutputError():
            return CLOSED if error.closed else UNWRITABLE
        case ProviderError() if error.retryable:
            spoke = bool(getattr(error.partial, "text", ""))
            return LOST if spoke else UNREACHABLE
        case ProviderError() | UnexpectedResponse():
            return REFUSED
        case Unreachable():
            return UNREACHABLE
    return LOST


def interrupt_on_signals() -> None:
    """Let SIGINT and SIGTERM raise :class:`Interrupted`; a second one exits without unwinding anything."""

    def interrupt(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal handler's signature
        exit_on_signals()
        raise Interrupted(signum)

    _on_signals(interrupt)


def exit_on_signals() -> None:
    """Let SIGINT and SIGTERM exit at once: there is nothing to unwind, or the user does not want to wait for it."""
    _on_signals(lambda signum, frame: os._exit(128 + signum))  # noqa: ARG005 - the signal handler's signature


def _on_signals(action: Callable[[int, FrameType | None], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # only the main thread can set handlers
            if signal.getsignal(number) is not signal.SIG_IGN:  # the parent ignores it, as nohup does
                signal.signal(number, action)
