"""Part of chat completions and legacy completions: choices, each with its own finish reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from unbroken.core.dialect import FinishMeaning, Generation, Signal
from unbroken.core.dialects.common.errors import error_of, error_of_choice, parsed, severity
from unbroken.core.payload import DONE, count, text
from unbroken.core.sse import Event

BOOKKEEPING = frozenset(
    {"id", "object", "created", "model", "usage", "system_fingerprint", "service_tier", "timings", "provider"}
    | {"prompt_filter_results", "x_groq", "prompt_progress", "obfuscation", "moderation", "choices"}
)
"""Fields of a chunk without choices that are not part of the answer; with any other field the chunk is output."""


class ChoicesReader:
    """A reader of one attempt's events, for their meaning to the rule; a dialect defines :meth:`speaks` and
    :attr:`finish_reasons`.

    Args:
        generation: what the request asks for; the attempt settles when each of its choices has a finish reason.
    """

    finish_reasons: ClassVar[Mapping[str, FinishMeaning]]

    def __init__(self, generation: Generation) -> None:
        self._requested = generation.choices
        self._begun = 0
        self._finished: set[int] = set()
        self._settled = False

    def speaks(self, choice: Mapping[str, Any]) -> bool:
        """Return whether a choice carries anything that the model produced."""
        raise NotImplementedError

    def finishes(self, choice: Mapping[str, Any]) -> bool:
        """Return whether a choice says that it has ended; an empty reason does not count."""
        return bool(text(choice.get("finish_reason")))

    def read(self, event: Event) -> Signal:
        """See :meth:`unbroken.core.dialect.EventReader.read`."""
        data = event.data.strip()
        if not data or event.type == "ping":
            return Signal.SILENT
        if data == DONE:
            # Some servers ignore how many choices were requested. The highest index says how many have begun: after the
            # first output, not all events of choice 0 are read.
            return Signal.ENDS | self._settle(self._begun)
        chunk = parsed(data, event.type)
        if not isinstance(chunk, dict):
            return Signal.SILENT if chunk is None else Signal.OUTPUT  # llama.cpp begins with null for several prompts
        if (error := error_of(chunk, event.type)) is not None:
            return severity(error)
        choices = chunk.get("choices") or []
        if not isinstance(choices, list):
            return Signal.OUTPUT
        signal = Signal.SILENT if choices or chunk.keys() <= BOOKKEEPING else Signal.OUTPUT
        for choice in choices:
            signal |= self._choice(choice)
        return signal & Signal.ERROR or signal

    def _choice(self, choice: object) -> Signal:
        if not isinstance(choice, dict):
            return Signal.OUTPUT
        if (error := error_of_choice(choice, self.finish_reasons)) is not None:
            return severity(error)
        index = count(choice.get("index")) or 0
        self._begun = max(self._begun, index + 1)
        if self.finishes(choice):
            self._finished.add(index)
        return (Signal.OUTPUT if self.speaks(choice) else Signal.SILENT) | self._settle(self._requested)

    def _settle(self, choices: int) -> Signal:
        """Return ``SETTLES`` once, when this many choices have finished."""
        if self._settled or not self._finished or len(self._finished) < choices:
            return Signal.SILENT
        self._settled = True
        return Signal.SETTLES
