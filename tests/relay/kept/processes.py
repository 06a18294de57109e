"""Relays as processes of their own, with one store: they are stopped, continued and killed."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cli.programs import environment
from relay.kept.clients import BODY, CHAT, KEY, LONG, headers_of
from relay.redis_server import RedisServer
from relay.serving import Caller, Received, RelayProgram
from unbroken.lab import Background, Continuation, ScriptedAnswer, Upstream
from waiting import poll

LEASE = 1.5
"""Seconds; short, so that no test waits for long, and long enough for a machine that is busy."""

PATIENT = 60.0
"""Seconds for which a test waits for a lease, and for a relay on a machine that is busy."""

_WITH_A_SHORT_LEASE = f"""
import sys
from unbroken.cli import main
from unbroken.relay.kept import keeper
from unbroken.relay.settings import Settings

keeper.ASK_WITHIN = keeper.SUCCESSOR_WITHIN = {PATIENT}  # on a machine that is busy the store may take longer

if __name__ == "__main__":
    Settings.__init__.__kwdefaults__["lease"] = {LEASE}
    del sys.argv[1:4]
    main()
"""


class Replica:
    """One relay.

    Attributes:
        program: its process.
        port: where it listens.
    """

    def __init__(self, program: RelayProgram, port: int) -> None:
        self.program = program
        self.port = port

    def pause(self) -> None:
        """Stop it, so that nothing in it runs."""
        self.program.send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self.program.send(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self.program.send(signal.SIGKILL)
        self.program.wait()


class Replicas:
    """An upstream, a Redis, and relays that share it.

    Args:
        stack: what is started is ended with it.
        home: a folder for the relays.
        answer: what the upstream answers.
        given: more for the upstream.
    """

    def __init__(
        self,
        stack: ExitStack,
        home: Path,
        answer: ScriptedAnswer = LONG,
        *,
        background: Background | None = None,
        continuation: Continuation | None = None,
        **given: Any,
    ) -> None:
        upstream = Upstream(answer=answer, background=background, continuation=continuation, **given)
        self.lab = stack.enter_context(upstream)
        self.redis = stack.enter_context(RedisServer())
        self._stack, self._home = stack, home
        self._script = home / "short_lease.py"
        self._script.write_text(_WITH_A_SHORT_LEASE)

    def start(self, *args: str) -> Replica:
        """Start a relay."""
        given = ["--keep", "60", "--store", self.redis.url, "--upstream", f"lab={self.lab.url}", "--proxy", "direct"]
        program = RelayProgram(
            *("relay", "--port", "0", *given, *args),
            env=environment(self._home),
            prefix=(sys.executable, str(self._script)),
        )
        self._stack.enter_context(program)
        said = program.err.wait_for("status page: ", PATIENT)
        return Replica(program, int(re.search(r"listening on http://.*:(\d+)\n", said)[1]))

    def begin(
        self, at: Replica, *fields: tuple[str, str], key: str = KEY, body: Any = BODY, path: str = CHAT
    ) -> Caller:
        """Ask a relay."""
        caller = self._stack.enter_context(Caller(at.port))
        caller.sock.settimeout(PATIENT)
        caller.begin("POST", path, headers_of(key, *fields), json.dumps(body).encode())
        return caller

    def ask(self, at: Replica, *fields: tuple[str, str], **given: Any) -> Received:
        """Ask, and read the whole response."""
        return self.begin(at, *fields, **given).answer()

    def own(self, at: Replica, method: str, rest: str = "", fields: Sequence[tuple[str, str]] = ()) -> Received:
        """Ask a relay about what is kept."""
        caller = self._stack.enter_context(Caller(at.port))
        caller.sock.settimeout(PATIENT)
        return caller.ask(method, f"/_unbroken/turns{rest}", headers_of(KEY, *fields))

    def has_stored(self, turn: str | None, size: int) -> None:
        """Wait until so many bytes of a turn are in the store."""

        def stored() -> int:
            said = self.redis.ask("HGET", f"unbroken:1:turn:{turn}", "at").split(b"\r\n")
            return int(said[1]) if len(said) > 2 else 0

        poll(lambda: stored() >= size, PATIENT)

    def lease_is_over(self, turn: str | None) -> None:
        """Wait until nobody holds a turn."""
        poll(lambda: self.redis.ask("EXISTS", f"unbroken:1:lease:{turn}") == b":0\r\n", PATIENT)

    @property
    def asked_upstream(self) -> int:
        """How often the upstream was asked for an answer."""
        return len(self.lab.requests_for("generation"))
