"""The events of an interaction as typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbroken.core.answer import Answer
from unbroken.core.dialects.common.error_shapes import parsed
from unbroken.core.dialects.common.google import judged
from unbroken.core.dialects.common.plain_first import PlainFirstDecoder
from unbroken.core.dialects.common.usage import reported
from unbroken.core.dialects.interactions.errors import (
    ENDINGS,
    Json,
    error_of_event,
    event_kind,
    interaction_of,
    is_interaction,
    status_of,
)
from unbroken.core.dialects.interactions.plain import KIND, plain_delta
from unbroken.core.dialects.interactions.steps import CONTENTS, InteractionStep
from unbroken.core.events import Finish, TypedEvent, Usage
from unbroken.core.payload import count, dicts, is_done, mapping, text
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent


class InteractionsDecoder(PlainFirstDecoder):
    """A decoder of one attempt's events."""

    def __init__(self) -> None:
        self._steps: list[InteractionStep] = []
        self._at: dict[int, InteractionStep] = {}
        self._has_contents = False
        self._step_error: Json | None = None

    def decode_plain(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`PlainFirstDecoder.decode_plain`."""
        if event.type not in (KIND, "message") or not (plain := plain_delta(event.data)):
            return ()
        return [self._step_at(plain.index).add_text(plain.delta.text)]

    def decode_full(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`PlainFirstDecoder.decode_full`."""
        data = event.data.strip()
        if event.is_keepalive or is_done(data):
            return ()
        answer = parsed(data, event.type)
        return list(self._events(event_kind(answer, event), answer)) if isinstance(answer, dict) else ()

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode_whole`."""
        try:
            answer = mapping(parsed(body))
        except MalformedEvent:
            return ()
        if is_interaction(answer):
            return list(self._ending("interaction.completed", answer))
        error = error_of_event("message", answer)
        return () if error is None else [judged(error)]

    def messages(self, answer: Answer) -> list[dict[str, Any]]:
        """Return the steps, to append to the next ``input``; contents, as a turn of the model.

        Thoughts are included with their signatures, tool calls of the server with their results. Output that was cut is
        included as far as it came.
        """
        whole = answer.completes_calls()
        kept = [step.step for step in self._steps if step.is_worth_keeping and (whole or not step.is_call)]
        if not self._has_contents:
            return kept
        contents = [part for step in kept for part in (step.get("content") or [step])]
        return [{"role": "model", "content": contents}] if contents else []

    def _events(self, kind: str, answer: Json) -> Iterator[TypedEvent]:
        index = count(answer.get("index")) or 0
        match kind:
            case "step.start":
                yield from self._start(index, mapping(answer.get("step")))
            case "content.start":
                self._has_contents = True
                yield from self._start(index, mapping(answer.get("content")))
            case "step.delta" | "content.delta":
                self._has_contents = self._has_contents or kind == "content.delta"
                yield from self._step_at(index).add(mapping(answer.get("delta")))
                yield from _usage(mapping(answer.get("metadata")).get("total_usage"))
            case "step.stop" | "content.stop":
                yield from self._step_at(index).close()
                yield from _usage(answer.get("usage"))
            case _ if kind in ENDINGS:
                yield from self._ending(kind, answer)
                return
            case _:
                yield from self._whole(interaction_of(answer))
                yield from _usage(answer.get("usage"))
        if (error := error_of_event(kind, answer)) is not None:
            yield judged(error)
        elif status := status_of(kind, answer):
            yield Finish(status)

    def _ending(self, kind: str, answer: Json) -> Iterator[TypedEvent]:
        interaction = interaction_of(answer)
        if not self._steps:
            yield from self._whole(interaction)
        for step in self._steps:
            yield from step.close()
        yield from _usage(interaction.get("usage"))
        if (error := error_of_event(kind, answer, self._step_error)) is not None:
            yield judged(error)
        else:
            yield Finish(status_of(kind, answer))

    def _whole(self, interaction: Json) -> Iterator[TypedEvent]:
        """Yield the events of the steps of an interaction, or of its contents; an event of a stream has mostly none."""
        self._has_contents = self._has_contents or "outputs" in interaction
        steps = [*dicts(interaction.get("steps")), *dicts(interaction.get("outputs"))]
        for index, step in enumerate(steps):
            yield from self._start(index, step)
            yield from self._at[index].close()

    def _start(self, index: int, step: dict[str, Any]) -> Iterator[TypedEvent]:
        self._step_error = mapping(step.get("error")) or self._step_error
        whole = {"type": "model_output", "content": [step]} if text(step.get("type")) in CONTENTS else dict(step)
        yield from self._new(index, whole).begin()

    def _step_at(self, index: int) -> InteractionStep:
        """Return the step at an index; create it if the server did not start it."""
        return self._at.get(index) or self._new(index, {"type": "model_output"})

    def _new(self, index: int, step: dict[str, Any]) -> InteractionStep:
        calls = sum(known.is_call for known in self._steps)
        self._at[index] = step_there = InteractionStep(step, calls)
        self._steps.append(step_there)
        return step_there


def _usage(fields: object) -> Iterator[TypedEvent]:
    """Yield token counts. Google counts thoughts separately from the output, tool results from the prompt."""
    counts: Mapping[str, Any] = mapping(fields)
    thoughts = count(counts.get("total_thought_tokens"))
    yield from reported(
        Usage(
            input_tokens=_sum(count(counts.get("total_input_tokens")), count(counts.get("total_tool_use_tokens"))),
            cached_tokens=count(counts.get("total_cached_tokens")),
            output_tokens=_sum(count(counts.get("total_output_tokens")), thoughts),
            reasoning_tokens=thoughts,
        )
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)
