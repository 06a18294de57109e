"""What ``unbroken exec`` chooses for programs that it knows, where the user has not chosen.

A program that shows nothing of an answer before its end loses nothing if the answer is held to its end, and then no cut
of it is ever seen. When each program shows what was tried with the program itself, as ``docs/agents.md`` names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from unbroken.core.policy import Hold


@dataclass(frozen=True, slots=True)
class Preset:
    """The choices for one program in the mode in which it is started.

    Attributes:
        program: its name.
        mode: arguments of which one must be given: in this mode it shows nothing before the end.
        but_not: values of its arguments with which it does.
        hold: how much of an answer is held.
        environ: variables that keep it from giving up on an answer that is held: its own idle timers are not fed by
            what the relay sends meanwhile.
    """

    program: str
    mode: tuple[str, ...]
    but_not: tuple[str, ...]
    hold: Hold
    environ: Mapping[str, str] = field(default_factory=dict)

    def suits(self, argv: Sequence[str]) -> bool:
        """Return whether a command starts the program in this mode."""
        if PurePath(argv[0]).stem.lower() != self.program:
            return False
        words = [word for argument in argv[1:] for word in argument.split("=", 1)]
        return any(word in self.mode for word in words) and not any(word in self.but_not for word in words)


PRESETS = (
    Preset("claude", ("-p", "--print"), ("stream-json",), "answer"),
    Preset("opencode", ("run",), ("json",), "answer"),
    Preset(
        "qwen",
        ("-p", "--prompt"),
        ("stream-json",),
        "answer",
        {"QWEN_STREAM_IDLE_TIMEOUT_MS": "0"},  # 240000, and it counts no comment
    ),
)
"""Left out are programs that stream what they show (aider), or whose format has no heartbeat (Gemini CLI)."""


def find_preset(argv: Sequence[str]) -> Preset | None:
    """Return the preset for a command, ``None`` if no preset suits it."""
    return next((preset for preset in PRESETS if preset.suits(argv)), None)
