"""Output of a turn for a person: the answer on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator

from unbroken.cli.exits import OutputError
from unbroken.cli.live import LiveLine
from unbroken.cli.messages import attempt_line, footer, remarks
from unbroken.cli.output import Output
from unbroken.cli.terminal import HarmlessText, dimmed, harmless, is_terminal, is_tty, plain, say, show
from unbroken.client.synchronous import TurnStream
from unbroken.core.actions import RetryEvent
from unbroken.core.events import Reasoning, Refusal, Restarted, Text, TypedEvent
from unbroken.core.report import Report
from unbroken.drivers.notices import describe
from unbroken.errors import TurnError


class Renderer:
    """A renderer of a turn; the output on stderr is the same for every format.

    Args:
        quiet: show only errors on stderr.
        verbose: show every attempt at the end.
        shows_reasoning: show the model's reasoning on stderr.
    """

    def __init__(self, *, quiet: bool, verbose: bool, shows_reasoning: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._shows_reasoning = shows_reasoning
        self._stdout = Output(sys.stdout)
        self._live: LiveLine | None = None
        self._advice = ""
        logger = logging.getLogger("unbroken")  # its messages are shown here
        logger.addHandler(logging.NullHandler())
        logger.propagate = False

    @contextlib.contextmanager
    def waiting(self, turn: TurnStream, provider: str) -> Iterator[None]:
        """Show on a terminal what is being waited for, until there is output."""
        if self._quiet or not is_terminal(sys.stderr):
            yield
            return
        self._live = LiveLine(turn, provider)
        with self._live.shown():
            yield

    def retried(self, event: RetryEvent) -> None:
        """Show a retry or replay: one line, and a second one if there is advice of another kind than before."""
        if self._quiet:
            return
        self._notice(f"↻ {harmless(describe(event))}")
        if _kind_of(event.advice) != _kind_of(self._advice):
            self._advice = event.advice
            self._notice(f"  {event.advice}")
        if self._live:
            self._live.pause(event.delay, event.path)

    def event(self, event: TypedEvent) -> None:
        """Show a typed event."""

    def failed(self, error: TurnError, turn: TurnStream) -> None:
        """Show that the turn has failed."""
        advice = turn.report.advice
        is_known = advice and _kind_of(advice) == _kind_of(self._advice)
        message = str(error).removesuffix(f"; {advice}") if is_known else str(error)
        say(f"unbroken: {harmless(message)}")
        self._attempts(turn.report)

    def interrupted(self, turn: TurnStream) -> None:
        """Show that SIGINT or SIGTERM interrupted the turn."""

    def finished(self, turn: TurnStream) -> None:
        """Show the footer of a turn that has ended well."""
        if self._quiet:
            return
        for remark in remarks(turn.answer, turn.report):
            say(f"  · {remark}")
        say(dimmed(footer(turn.usage, turn.report), sys.stderr))
        self._attempts(turn.report)

    def _write(self, data: bytes) -> None:
        try:
            self._stdout.write_bytes(data)
        except OSError as exc:
            raise OutputError(exc) from None

    def _stop_waiting(self) -> None:
        if self._live:
            self._live.stop()

    def _wait(self) -> None:
        """Show what is being waited for once more."""
        if self._live:
            self._live.start()

    def _notice(self, text: str) -> None:
        if self._live:
            self._live.interrupt(text)
        else:
            say(text)

    def _attempts(self, report: Report) -> None:
        if self._verbose:
            for attempt in report.attempts:
                say(dimmed(f"  · {attempt_line(attempt)}", sys.stderr))


def _kind_of(advice: str) -> str:
    """Return advice without its figures, which change a little from cut to cut."""
    return re.sub(r"[\d.]+", "", advice)


_RESTARTED = f"{'─' * 12} restarted {'─' * 12}"


class TextRenderer(Renderer):
    """A renderer that writes the answer as it comes."""

    def __init__(self, **options: bool) -> None:
        super().__init__(**options)
        self._last = "\n"
        self._reasoned = ""
        self._on_terminal = is_tty(sys.stdout)
        self._harmless_answer, self._harmless_reasoning = HarmlessText(), HarmlessText()

    def event(self, event: TypedEvent) -> None:
        """See :meth:`Renderer.event`."""
        match event:
            case Text(text, 0) | Refusal(text, 0):
                self._stop_waiting()
                self._end_reasoning()
                self._answer(text)
            case Reasoning(text, 0) if self._shows_reasoning:
                self._stop_waiting()
                self._reason(text)
            case Restarted(_, character) if character or self._shows_reasoning:
                self._restart()

    def retried(self, event: RetryEvent) -> None:
        """See :meth:`Renderer.retried`. Behind half of an answer the notice is on a line of its own."""
        if event.action == "restart":
            self._stop_waiting()
            self._end_lines()
        elif event.character is not None and self._last != "\n" and self._on_terminal and not self._quiet:
            say("")
        super().retried(event)
        if event.action == "restart":
            self._wait()

    def failed(self, error: TurnError, turn: TurnStream) -> None:
        """See :meth:`Renderer.failed`. The answer so far stays, on lines of its own."""
        with contextlib.suppress(OutputError):  # only the first error is shown
            self._end_lines()
        super().failed(error, turn)

    def interrupted(self, turn: TurnStream) -> None:  # noqa: ARG002 - the others need it
        """See :meth:`Renderer.interrupted`. The answer so far stays, on lines of its own."""
        if self._on_terminal or not self._stdout.torn:  # a pipe without a reader would block
            with contextlib.suppress(OutputError):
                self._end_lines()

    def finished(self, turn: TurnStream) -> None:
        """See :meth:`Renderer.finished`."""
        self._stop_waiting()
        self._end_lines()
        if not self._quiet:
            for call in turn.tool_calls:
                say(harmless(f"  · tool call {call.name}({call.arguments}), not run: unbroken run has no tools"))
        super().finished(turn)

    def _restart(self) -> None:
        """Draw a line below the text of the lost attempt. Only an answer on a terminal begins again."""
        self._stop_waiting()
        self._end_lines()
        self._harmless_answer, self._harmless_reasoning = HarmlessText(), HarmlessText()
        line = plain(_RESTARTED, self._stdout.encoding)
        self._write(dimmed(f"{line}\n", sys.stdout).encode(self._stdout.encoding, "backslashreplace"))
        self._wait()

    def _answer(self, text: str) -> None:
        self._last = text[-1:] or self._last
        shown = self._harmless_answer.add(text) if self._on_terminal else text
        self._write(shown.encode(self._stdout.encoding, "backslashreplace"))

    def _reason(self, text: str) -> None:
        if self._last != "\n" and not self._reasoned and self._on_terminal:
            say("")  # reasoning in the middle of a line: a new line on the terminal, no byte on stdout
        show(dimmed(self._harmless_reasoning.add(text), sys.stderr))
        self._reasoned = text or self._reasoned

    def _end_reasoning(self) -> None:
        if self._reasoned:
            rest = self._harmless_reasoning.add("", last=True)
            say(rest if self._reasoned.endswith("\n") else f"{rest}\n")
            self._reasoned = ""

    def _end_lines(self) -> None:
        self._end_reasoning()
        if self._last != "\n":
            self._answer("\n")
