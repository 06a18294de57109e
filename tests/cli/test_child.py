"""The program that ``unbroken exec`` runs is where it would be without it: streams, signals, terminal, job control."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli.programs import Program, shell
from cli.terminals import Terminal
from unbroken.cli.child import _Signals
from unbroken.lab import Fault, Upstream

ASKING = str(Path(__file__).with_name("asking.py"))
ALONE = (sys.executable, "-c", "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])")
"""Before a command: without a terminal."""

SAY = """
import os, signal, sys
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # print() must not meet itself in a handler
"""

HEARS = f"""{SAY}
def heard(number, frame):
    say("got", signal.Signals(number).name)
    sys.exit(5)
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), heard)
say("ready")
sys.stdin.read()
"""

READS = f"""{SAY}
ints = []
signal.signal(signal.SIGINT, lambda number, frame: (ints.append(1), say("int", len(ints))))
say("ready", [os.isatty(number) for number in range(3)], os.get_terminal_size().columns)
for line in sys.stdin:
    say("got", line.strip().upper())
    if line == "stop me\\n":
        os.kill(os.getpid(), signal.SIGTSTP)
    if line == "quit\\n":
        break
say("ints", len(ints))
sys.exit(3)
"""


def program(tmp_path: Path, text: str) -> tuple[str, ...]:
    path = tmp_path / "program.py"
    path.write_text(text)
    return (sys.executable, str(path))


def test_standard_streams_and_open_files_are_the_programs(env: dict[str, str]) -> None:
    code = "import os, sys; os.write(1, sys.stdin.buffer.read() + os.read(3, 99)); os.write(2, b'err')"
    ended = shell(
        f'printf "and three" > three; printf "one, " | unbroken exec -q -- {sys.executable} -c "$CODE" 3< three',
        env=env | {"CODE": code},
    )
    assert (ended.code, ended.out, ended.err) == (0, "one, and three", "err")


def test_what_was_closed_stays_closed(env: dict[str, str]) -> None:
    code = "import os; os.write(2, b'closed' if not os.path.exists('/proc/self/fd/0') else b'open')"
    ended = shell(f'unbroken exec -q -- {sys.executable} -c "$CODE" <&-', env=env | {"CODE": code})
    assert ended.err == "closed"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGINT", "SIGQUIT"])
def test_a_signal_is_the_programs_who_decides(name: str, env: dict[str, str], tmp_path: Path) -> None:
    command = program(tmp_path, HEARS)
    with Program("exec", "-q", *command, name, env=env, stdin=subprocess.PIPE, prefix=ALONE) as running:
        running.out.wait_for("ready")
        running.send(getattr(signal, name))
        ended = running.end()
    assert (ended.code, ended.out, ended.err) == (5, f"ready\ngot {name}\n", "")


def test_a_signal_that_ends_it_is_told_by_the_exit_code(env: dict[str, str], tmp_path: Path) -> None:
    with Program("exec", *program(tmp_path, HEARS), env=env, stdin=subprocess.PIPE) as running:
        running.out.wait_for("ready")
        running.send(signal.SIGTERM)
        ended = running.end()
    assert ended.code == 143
    assert ended.err.startswith("unbroken: no turn came through the relay")


def test_an_ignored_signal_stays_ignored(env: dict[str, str]) -> None:
    """As under nohup, or in the background of a shell without job control."""
    code = "import signal; print(*(signal.getsignal(n) is signal.SIG_IGN for n in (signal.SIGHUP, signal.SIGINT)))"
    prefix = ["sh", "-c", 'trap "" HUP INT; exec "$0" "$@"']
    with Program("exec", "-q", sys.executable, "-c", code, env=env, prefix=prefix) as running:
        assert running.end().out == "True True\n"


def test_a_signal_that_comes_too_early_is_not_lost() -> None:
    with subprocess.Popen(["sleep", "60"]) as child, _Signals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        signals.go_to(child.pid)
        assert child.wait(10) == -signal.SIGUSR1


def test_nothing_of_the_relay_outlives_it(env: dict[str, str]) -> None:
    code = "import os, sys; print(os.environ['UNBROKEN_RELAY_URL'], flush=True); sys.stdin.read()"
    with Program("exec", sys.executable, "-c", code, env=env, stdin=subprocess.PIPE) as running:
        port = urlsplit(running.out.wait_for("\n").strip()).port
        socket.create_connection(("127.0.0.1", port)).close()
        running.send(signal.SIGKILL)
        running.wait()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        running.end_stdin()
        running.out.wait_for_end()  # of the program, whom the signal did not reach


def test_what_it_leaves_behind_does_not_keep_us(env: dict[str, str]) -> None:
    script = '"$0" "$1" 2> /dev/null & read line; exit 7'
    with Upstream(faults=[Fault("stall", "after_token")]) as upstream:
        env = env | {"OPENAI_BASE_URL": upstream.url}
        with Program("exec", "sh", "-c", script, sys.executable, ASKING, env=env, stdin=subprocess.PIPE) as running:
            assert upstream.wait_for(lambda: upstream.requests and b"Hello" in upstream.requests[0].sent, timeout=10)
            running.write(b"\n")
            ended = running.end()
        assert upstream.requests[0].gone
    assert (ended.code, ended.err) == (7, "unbroken: 1 turn, 0 answered\n")


# On a terminal


def test_ctrl_c_reaches_it_once_and_it_decides(env: dict[str, str], tmp_path: Path) -> None:
    with Terminal("exec", "-q", *program(tmp_path, READS), env=env, columns=77) as terminal:
        terminal.seen.wait_for("ready [True, True, True] 77")
        for count in (1, 2):
            terminal.type("\x03")
            terminal.seen.wait_for(f"int {count}")
        terminal.type("quit\n")
        code, seen = terminal.end()
    assert code == 3
    assert seen.endswith("ints 2\n")


def test_ctrl_c_ends_what_does_not_mind(env: dict[str, str]) -> None:
    with Terminal("exec", "sh", "-c", "echo ready; exec sleep 60", env=env) as terminal:
        terminal.seen.wait_for("ready")
        terminal.type("\x03")
        code, seen = terminal.end()
    assert code == 130
    assert "unbroken: no turn came through the relay" in seen


@pytest.mark.parametrize("key", ["\x1a", "stop me\n"], ids=["ctrl-z", "by itself"])
def test_it_is_stopped_and_goes_on_like_any_job(key: str, env: dict[str, str], tmp_path: Path) -> None:
    with Terminal("--norc", "-i", env=env | {"PS1": "$ "}, program=("bash",)) as terminal:
        terminal.type(f"{sys.executable} -m unbroken exec -q {' '.join(program(tmp_path, READS))}\n")
        terminal.seen.wait_for("ready [True, True, True]")
        terminal.type(key)
        terminal.seen.wait_for("Stopped")
        terminal.type("fg\n")
        terminal.type("hello\n")
        terminal.seen.wait_for("got HELLO")
        terminal.type("quit\n")
        terminal.seen.wait_for("ints 0")
        terminal.type("exit\n")
        code, seen = terminal.end()
    assert code == 3, seen
    assert seen.count("Stopped") == 1
