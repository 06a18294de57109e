from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from unbroken.lab.program import OUTPUT_LIMIT, Programs

PYTHON = (sys.executable, "-I", "-S", "-c")
LONG = 60.0

LEAVES_A_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
if sys.argv[1:]:
    time.sleep(600)
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def has_ended(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


def test_tells_what_a_program_did() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    with Programs() as programs:
        ran = programs.run([*PYTHON, code], os.environ, LONG)
    assert (ran.exit_code, ran.stdout, ran.stderr) == (3, "out\n", "err\n")
    assert ran.seconds < LONG


def test_a_program_has_no_input() -> None:
    with Programs() as programs:
        assert programs.run([*PYTHON, "print(repr(input()))"], os.environ, LONG).exit_code == 1


def test_a_signal_is_told_as_shells_do() -> None:
    with Programs() as programs:
        ran = programs.run([*PYTHON, "import os; os.kill(os.getpid(), 15)"], os.environ, LONG)
    assert ran.exit_code == 128 + 15


def test_of_much_output_the_beginning_is_kept_and_the_program_ends() -> None:
    code = f"import sys; sys.stdout.write('x' * {3 * OUTPUT_LIMIT})"
    with Programs() as programs:
        ran = programs.run([*PYTHON, code], os.environ, LONG)
    assert ran.exit_code == 0
    assert ran.stdout == "x" * OUTPUT_LIMIT


@pytest.mark.parametrize(("argument", "timeout"), [((), LONG), (("stay",), 0.5)], ids=["at its end", "at the timeout"])
def test_nothing_that_a_program_has_started_outlives_it(argument: tuple[str, ...], timeout: float) -> None:
    with Programs() as programs:
        while True:  # under load it may not have come to its output
            ran = programs.run([*PYTHON, LEAVES_A_CHILD, *argument], os.environ, timeout)
            if ran.stdout:
                break
            timeout *= 2
    assert ran.exit_code == (None if argument else 0)
    assert has_ended(int(ran.stdout))


def test_a_program_that_ignores_sigterm_is_ended() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    with Programs() as programs:
        assert programs.run([*PYTHON, code], os.environ, 0.5).exit_code is None


def test_closing_ends_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    code = f"import pathlib, time; pathlib.Path({str(mark)!r}).touch(); time.sleep(600)"
    programs = Programs()
    found = []
    thread = threading.Thread(target=lambda: found.append(programs.run([*PYTHON, code], os.environ, 600)))
    thread.start()
    deadline = time.monotonic() + 30
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    programs.close()
    thread.join(30)
    assert [ran.exit_code for ran in found] == [128 + 9]
    with pytest.raises(RuntimeError, match="any more"):
        programs.run([*PYTHON, ""], os.environ, LONG)


def test_a_program_that_is_not_there_is_an_error() -> None:
    with Programs() as programs, pytest.raises(FileNotFoundError):
        programs.run(["/nowhere/at/all"], os.environ, LONG)
