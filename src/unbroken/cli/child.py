r"""Another program in place of this one: with the same streams, terminal and signals, and its exit code.

It stays in this process group, so that the terminal reaches it directly: keys (Ctrl-C, Ctrl-\, Ctrl-Z) signal the whole
group. Signals to this process alone (``kill``) are forwarded.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from unbroken.errors import UnbrokenError

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes, as in shells."""


def _numbers(*names: str) -> tuple[signal.Signals, ...]:
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))  # Windows has few of them


_HANDED_ON = _numbers("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT")
_OF_A_KEYBOARD = _numbers("SIGINT", "SIGQUIT")
_STOPS = _numbers("SIGTSTP", "SIGTTIN", "SIGTTOU")


class CannotRun(UnbrokenError):
    """The program cannot be run.

    Attributes:
        code: the exit code for this error.
    """

    def __init__(self, name: str, reason: str, code: int) -> None:
        super().__init__(f"{name}: {reason}")
        self.code = code


def find_program(name: str) -> str:
    """Find the file of a program, as a shell does.

    Raises:
        CannotRun: it does not exist, or is not executable.
    """
    if program := shutil.which(name):
        return program
    if os.path.exists(name) and os.path.dirname(name):  # noqa: PTH110, PTH120 - a word of the command line
        raise CannotRun(name, "a folder" if os.path.isdir(name) else "not executable", NOT_EXECUTABLE)  # noqa: PTH112
    raise CannotRun(name, "command not found", NOT_FOUND)


def run(program: str, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a program to its end.

    Args:
        program: its file.
        argv: its name and its arguments.
        environ: its environment.

    Returns:
        Its exit code; 128 + n if signal n has ended it.

    Raises:
        CannotRun: the system refuses to run it.
    """
    with _Signals() as signals:
        try:
            # The program gets every descriptor that this process inherited. Those opened here are not inherited.
            child = subprocess.Popen([program, *argv[1:]], env=environ, close_fds=os.name == "nt")
        except OSError as exc:
            code = NOT_FOUND if isinstance(exc, FileNotFoundError) else NOT_EXECUTABLE
            raise CannotRun(argv[0], exc.strerror or str(exc), code) from None
        signals.go_to(child.pid)
        if hasattr(os, "waitid"):  # not on Windows, nor on macOS before Python 3.13
            _wait_for(child.pid)
            signals.go_to(None)  # before its process id can be used again
        code = child.wait()
    return 128 - code if code < 0 else code


class _Signals(contextlib.AbstractContextManager["_Signals"]):
    """A context that forwards signals to the program. Ignored signals stay ignored, here and in the program."""

    def __init__(self) -> None:
        self._child: int | None = None
        self._early: list[int] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (*_HANDED_ON, *_OF_A_KEYBOARD, *_STOPS):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def go_to(self, child: int | None) -> None:
        """Forward signals to this process, including those received so far; ``None`` for no process."""
        self._child = child
        while child is not None and self._early:
            self._kill(self._early.pop(0))

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the handler's signature
        if signum in _STOPS or (signum in _OF_A_KEYBOARD and _is_in_foreground()):
            return  # the terminal has sent it to the program too, which decides what to do
        if self._child is None:
            self._early.append(signum)
        else:
            self._kill(signum)

    def _kill(self, signum: int) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signum)


def _wait_for(child: int) -> None:
    """Wait until the program has ended, without reaping it. If the terminal stops it, stop too."""
    if sys.platform == "win32":
        raise NotImplementedError("there is no waitid on Windows")
    posix: Any = os  # Python has waitid on macOS since 3.13; typeshed does not know it
    while True:
        state = posix.waitid(posix.P_PID, child, posix.WEXITED | posix.WSTOPPED | posix.WNOWAIT)
        if state is None or state.si_code in (posix.CLD_EXITED, posix.CLD_KILLED, posix.CLD_DUMPED):
            return
        still = posix.waitid(posix.P_PID, child, posix.WSTOPPED | posix.WNOHANG)  # None if it runs again
        if still is not None and still.si_status in _STOPS:
            os.kill(os.getpid(), signal.SIGSTOP)


def _is_in_foreground() -> bool:
    """Return whether a terminal sends this process group the signals of its keys."""
    if sys.platform == "win32":
        return True  # a console sends Ctrl-C to every process that is attached to it
    with _terminal() as terminal:
        return terminal is not None and os.tcgetpgrp(terminal) == os.getpgrp()


@contextlib.contextmanager
def _terminal() -> Iterator[int | None]:
    if sys.platform == "win32":
        raise NotImplementedError("a Unix terminal")
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:  # no terminal
        yield None
        return
    try:
        yield terminal
    finally:
        os.close(terminal)
