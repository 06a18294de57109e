"""Part of chat completions and legacy completions: choices, each with its own finish reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from unbroken.core.dialect import FinishMeaning, Generation, Signal, finish_reason, severity
from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.dialects.common.error_shapes import error_of, error_of_choice, parsed
from unbroken.core.payload import count, filled, is_done
from unbroken.core.sse import Event

BOOKKEEPING = frozenset(
    {"id", "object", "created", "model", "usage", "system_fingerprint", "service_tier", "timings", "provider"}
    | {"prompt_filter_results", "x_groq", "prompt_progress", "obfuscation", "moderation", "choices"}
)
"""Fields of a chunk without choices that are not part of the answer; with any other field the chunk is output."""

_REASONING = ("reasoning", "thinking", "thought", "cot_")
"""Beginnings of the names of fields for reasoning, such as ``reasoning_content`` and ``cot_summary``."""


def output_in(fields: Iterable[tuple[str, object]]) -> Signal:
    """Return whether the fields of a choice hold anything that the model produced, and whether more than reasoning."""
    names = [name for name, value in fields if filled(value)]
    if not names:
        return Signal.SILENT
    return Signal.REASONING if all(name.startswith(_REASONING) for name in names) else Signal.OUTPUT


class ChoicesReader:
    """A reader of one attempt's events, for their meaning to the rule; a dialect defines
    :meth:`output_of` and :attr:`finish_reasons`.

    Args:
        generation: what the request asks for; the attempt settles when each of its choices has a finish reason.
    """

    runs_tool = False  # the format has no server tools
    finish_reasons: ClassVar[Mapping[str, FinishMeaning]]

    def __init__(self, generation: Generation) -> None:
        self.finish_reason = ""
        self._requested = generation.choices
        self._begun = 0
        self._finished: set[int] = set()
        self._ever_finished: set[int] = set()
        self._has_settled = False

    def output_of(self, choice: Mapping[str, Any]) -> Signal:
        """Return what of the model's output a choice carries: nothing, reasoning alone, or more."""
        raise NotImplementedError

    def finish_of(self, choice: Mapping[str, Any]) -> str:
        """Return the reason with which a choice says that it has ended, ``""`` if it does not."""
        return finish_reason(choice.get("finish_reason"))

    def read(self, event: Event) -> Signal:
        """See :meth:`unbroken.core.dialect.EventReader.read`."""
        if event.is_keepalive or event.type == "ping":
            return Signal.SILENT
        data = event.data.strip()
        if is_done(data):
            # Some servers ignore how many choices were requested. The highest index says how many have begun: after the
            # first output, not all events of choice 0 are read. A choice may go on behind its finish.
            settles = not self._has_settled and len(self._ever_finished) >= max(1, self._begun)
            return Signal.ENDS | (Signal.SETTLES if settles else Signal.SILENT)
        chunk = parsed(data, event.type)
        if not isinstance(chunk, dict):
            return Signal.SILENT if chunk is None else Signal.OUTPUT  # llama.cpp begins with null for several prompts
        if (error := error_of(chunk, event.type)) is not None:
            return severity(failed(error))
        choices = chunk.get("choices") or []
        if not isinstance(choices, list):
            return Signal.OUTPUT
        signal = Signal.SILENT if choices or chunk.keys() <= BOOKKEEPING else Signal.OUTPUT
        if not choices and filled(chunk.get("usage")):
            signal |= Signal.USAGE
        for choice in choices:
            signal |= self._choice(choice)
        return signal & Signal.ERROR or signal

    def _choice(self, choice: object) -> Signal:
        if not isinstance(choice, dict):
            return Signal.OUTPUT
        if (error := error_of_choice(choice, self.finish_reasons)) is not None:
            return severity(failed(error))
        index = count(choice.get("index")) or 0
        self._begun = max(self._begun, index + 1)
        if signal := self.output_of(choice):
            signal |= Signal.REOPENS if index in self._finished else Signal.SILENT
            self._finished.discard(index)
        if reason := self.finish_of(choice):
            signal |= self._finish(index, reason)
        return signal

    def _finish(self, index: int, reason: str) -> Signal:
        self._finished.add(index)
        self._ever_finished.add(index)
        if index == 0:
            self.finish_reason = reason
        settles = len(self._finished) >= self._requested
        self._has_settled = self._has_settled or settles
        return Signal.SETTLES if settles else Signal.FINISHES
