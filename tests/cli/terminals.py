"""``unbroken`` on a pseudo terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from cli.programs import PATIENCE, UNBROKEN, Heard

_ON_TERMINAL = """
import os, sys
terminal, *redirections = sys.argv[1].split(",")
os.login_tty(int(terminal))
for redirection in redirections:
    number, path = redirection.split(":", 1)
    os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), int(number))
os.execvp(sys.argv[2], sys.argv[2:])
"""

ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Terminal:
    """A terminal on which ``unbroken`` runs, as a context manager.

    Args:
        args: its arguments.
        env: its environment.
        redirected: standard streams that do not lead to the terminal, by number, and the file they lead to.
        columns: width of the terminal.
        program: what runs there instead of ``unbroken``.
    """

    def __init__(
        self,
        *args: str,
        env: Mapping[str, str],
        redirected: Mapping[int, Path] | None = None,
        columns: int = 100,
        program: Sequence[str] = UNBROKEN,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        spelled = ",".join([str(slave), *(f"{number}:{path}" for number, path in (redirected or {}).items())])
        self._process = subprocess.Popen(
            [sys.executable, "-ISc", _ON_TERMINAL, spelled, *program, *args],
            env=env,
            cwd=env["HOME"],
            pass_fds=[slave],
        )
        os.close(slave)
        self.seen = Heard(lambda: os.read(self._master, 65536))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        self.seen.wait_for_end()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_until_reading(self) -> None:
        """Wait until the program sleeps. A signal that comes between a prompt and the read would wait for a key: no
        Python can help that."""
        give_up = time.monotonic() + PATIENCE
        while Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < give_up, "it never came to rest"

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and everything that was written to the terminal."""
        code = self._process.wait(PATIENCE)
        return code, self.seen.wait_for_end().decode().replace("\r\n", "\n")


def screen(written: str) -> str:
    """What a terminal shows in the end of what was written: carriage returns and erased lines carried out."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in re.split(r"(\r|\x1b\[2K)", line):
            shown = "" if part in ("\r", "\x1b[2K") else shown + part
        lines.append(ESCAPE.sub("", shown))
    return "\n".join(lines)
