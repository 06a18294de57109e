"""The output items of a response, put together from deltas, from ``.done`` events and from whole items.

Servers identify items in different ways: GitHub Copilot changes their ids between events, llama.cpp sends no indexes,
vLLM has sent wrong ones. They also leave events out: litellm #27144 has the arguments only in
``function_call_arguments.done``, sub2api #6629 the text only in ``output_text.done``; OmniRoute #13693 sends
``output_item.done`` before the last deltas. So an item is found by any of its names, and what it says is the union of
all that came: of two texts of which one begins the other, the longer one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from unbroken.core.dialects.openai_responses.errors import Json
from unbroken.core.events import Reasoning, Refusal, Signature, Text, ToolCallArguments, ToolCallStart, TypedEvent
from unbroken.core.payload import dicts, filled, mapping, text

ARGUMENTS: Mapping[str, str] = {"function_call": "arguments", "custom_tool_call": "input"}
"""Output items that ask the caller to run a tool, and the field that holds the arguments."""

Place: TypeAlias = tuple[str, int]
"""Where a text of an item is: the item's field (``content``, ``summary``, ``arguments``), and the index in it."""

_SPOKEN: Mapping[str, type[Text | Reasoning | Refusal]] = {
    "output_text": Text,
    "text": Text,
    "refusal": Refusal,
    "reasoning_text": Reasoning,
    "summary_text": Reasoning,
}
"""Types of the parts of an item, and the typed event of each."""


class OutputItem:
    """One output item, as far as it came.

    Args:
        kind: its ``type``.
        number: its number among the tool calls, if it is one.

    Attributes:
        came: the item as the server sent it last; empty before.
        is_done: whether the server has said that it is whole.
        is_started: whether it was reported, if it is a tool call.
        is_adopted: whether all of it was said before the server said where it belongs.
    """

    def __init__(self, kind: str, number: int = 0) -> None:
        self.kind = kind
        self.number = number
        self.names: set[str] = set()
        self.index: int | None = None
        self.came: dict[str, Any] = {}
        self.is_done = False
        self.is_started = False
        self.is_adopted = False
        self._is_closed = False
        self._texts: dict[Place, list[str]] = {}
        self._kinds: dict[Place, str] = {}
        self._signature = ""

    @property
    def is_call(self) -> bool:
        """Whether it asks the caller to run a tool."""
        return self.kind in ARGUMENTS

    @property
    def is_anonymous(self) -> bool:
        """Whether none of its events had an id or an index."""
        return not self.names and self.index is None

    @property
    def has_said(self) -> bool:
        """Whether any of its text has come."""
        return bool(self._texts)

    @property
    def text(self) -> str:
        """The text of a message as far as it came."""
        return "".join(self.said(place) for place in sorted(self._texts) if self._kinds[place] != "refusal")

    def said(self, place: Place) -> str:
        """Return the text at a place."""
        return "".join(self._texts.get(place, ()))

    def say(self, words: str, place: Place, kind: str) -> Iterator[TypedEvent]:
        """Add a piece of text."""
        if words:
            self._texts.setdefault(place, []).append(words)
            self._kinds[place] = kind
            yield from self._spoken(words, kind)

    def tell(self, whole: str, place: Place, kind: str) -> Iterator[TypedEvent]:
        """Take a whole text: add what did not come in pieces. Arguments that contradict their pieces replace them."""
        said = self.said(place)
        if whole.startswith(said):
            yield from self.say(whole[len(said) :], place, kind)
        elif self.is_call and not said.startswith(whole):
            self._texts[place] = [whole]
            if self.is_started:
                shown = _as_json(whole) if self._is_closed else self._shown(whole, opens=True)
                yield ToolCallArguments(self.number, shown, replaces=True)

    def start(self) -> Iterator[TypedEvent]:
        """Report a tool call with the arguments that came before it was announced."""
        if self.is_call and not self.is_started:
            self.is_started = True
            name = text(self.came.get("name"))
            yield ToolCallStart(self.number, text(self.came.get("call_id")) or text(self.came.get("id")), name)
            if said := self.said(self._arguments_place):
                yield ToolCallArguments(self.number, self._shown(said, opens=True))

    def close(self) -> Iterator[TypedEvent]:
        """Report the end of a custom tool's input, which is reported as JSON: a string."""
        if self.kind == "custom_tool_call" and self.is_started and not self._is_closed:
            self._is_closed = True
            yield ToolCallArguments(self.number, '"' if self.said(self._arguments_place) else '""')

    def adopt(self, item: dict[str, Any]) -> None:
        """Take a whole item of which everything was said already, under no name."""
        self.came, self.is_done, self.is_adopted = item, True, True

    def take(self, item: dict[str, Any]) -> Iterator[TypedEvent]:
        """Take the item as the server says that it is: yield what did not come in pieces."""
        self.came = {**self.came, **item}
        if self.is_call:
            yield from self._take_call(text(item.get(ARGUMENTS[self.kind])))
            return
        for place, part in self._parts_that_count(item):
            kind = text(part.get("type")) or ("output_text" if self.kind == "message" else "reasoning_text")
            yield from self.tell(text(part.get("refusal" if kind == "refusal" else "text")), place, kind)
        if (signature := text(item.get("encrypted_content"))) and self.kind == "reasoning":
            is_new, self._signature = signature != self._signature, signature
            if is_new:
                yield Signature(signature)

    def _take_call(self, arguments: str) -> Iterator[TypedEvent]:
        yield from self.start()
        if arguments and self.kind == "custom_tool_call" and not self.has_said:
            self._texts[self._arguments_place], self._is_closed = [arguments], True
            yield ToolCallArguments(self.number, _as_json(arguments))
            return
        yield from self.tell(arguments, self._arguments_place, "arguments")
        yield from self.close()

    def as_history(self) -> dict[str, Any]:
        """Return the item to send back: as it came, with all that was said."""
        item = dict(self.came)
        if self.is_call:
            said = self.said(self._arguments_place)
            return {**item, ARGUMENTS[self.kind]: said} if said else item
        for field in {field for field, _ in self._texts}:
            item[field] = self._filled(field, list(item.get(field) or ()))
        if self.came:
            return item
        return {"type": self.kind, **({"role": "assistant"} if self.kind == "message" else {}), **item}

    @property
    def _arguments_place(self) -> Place:
        return (ARGUMENTS[self.kind], 0)

    def _spoken(self, words: str, kind: str) -> Iterator[TypedEvent]:
        if not self.is_call:
            yield _SPOKEN.get(kind, Text)(words)
        elif self._is_closed:  # it goes on behind its end
            yield ToolCallArguments(self.number, _as_json(self.said(self._arguments_place)), replaces=True)
        elif self.is_started:
            opens = len(self._texts[self._arguments_place]) == 1
            yield ToolCallArguments(self.number, self._shown(words, opens=opens))

    def _shown(self, words: str, *, opens: bool) -> str:
        """Return a piece of arguments as JSON: a custom tool takes free text."""
        return ('"' if opens else "") + _as_json(words)[1:-1] if self.kind == "custom_tool_call" else words

    def _parts_that_count(self, item: Json) -> Iterator[tuple[Place, Json]]:
        """Yield the parts of a whole item, each with the place at which its text came: indexes may differ.

        Reasoning comes in full or as a summary: of a whole item only one counts if none of either was said.
        """
        spoken = {field for field, _ in self._texts}
        fields = ["content", "summary"] if self.kind == "reasoning" else ["content"]
        holding = [field for field in fields if filled(list(dicts(item.get(field))))]
        for field in [field for field in holding if field in spoken] or holding[:1]:
            places = sorted(place for place in self._texts if place[0] == field)
            beyond = places[-1][1] + 1 if places else 0
            for number, part in enumerate(dicts(item.get(field))):
                yield places[number] if number < len(places) else (field, beyond + number - len(places)), part

    def _filled(self, field: str, parts: list[Any]) -> list[Any]:
        places = sorted(place for place in self._texts if place[0] == field)
        for index, place in enumerate(places):
            kind = self._kinds[place]
            part = mapping(parts[index]) if index < len(parts) else {"type": kind}
            words = "refusal" if kind == "refusal" else "text"
            parts[index : index + 1] = [{**part, words: self.said(place)}]
        return parts


class OutputItems:
    """The output items of one response, in the order in which they appeared."""

    def __init__(self) -> None:
        self.all: list[OutputItem] = []

    def of(self, kind: str, name: str, index: int | None) -> OutputItem:
        """Return the item of an event: by its id, else by its index, else the last of its kind; or a new one.

        Args:
            kind: the item's ``type``.
            name: its id, or its call's id; ``""`` if the event has none.
            index: its index in the output, ``None`` if the event has none.
        """
        same = [item for item in self.all if item.kind == kind]
        found = next((item for item in same if name and name in item.names), None)
        if found is None and index is not None:
            found = next((item for item in same if item.index == index), None)
        if found is None:
            open_items = [item for item in same if not item.is_done or (not name and index is None)]
            found = open_items[-1] if open_items and (index is None or open_items[-1].index is None) else None
        return self._named(found or self._new(kind, index), [name], index)

    def announce(self, item: dict[str, Any], index: int | None) -> OutputItem:
        """Return a new item that the server announces, or the one that it has announced already."""
        kind, names = kind_of(item), names_of(item)
        same = [known for known in self.all if known.kind == kind]
        known = next((known for known in same if known.names.intersection(names)), None)
        if known is None and index is not None:
            known = next((known for known in same if known.index == index and not known.is_done), None)
        known = self._named(known or self._new(kind, index), names, index)
        known.came = known.came or {name: value for name, value in item.items() if name != "status"}
        return known

    def finished(self, item: dict[str, Any], index: int | None) -> OutputItem:
        """Return the item that a whole one belongs to."""
        kind, names = kind_of(item), names_of(item)
        for name in names:
            for known in self.all:
                if known.kind == kind and name in known.names:
                    return self._named(known, names, index)
        return self._named(self.of(kind, "", index) if index is not None else self._open(kind), names, index)

    def forget_anonymous(self, output: list[dict[str, Any]]) -> None:
        """Drop text that came under no name if the whole response repeats it: its items say where it belongs."""
        for known in [item for item in self.all if item.is_anonymous and not item.is_call]:
            repeated = [item for item in output if kind_of(item) == known.kind]
            if (told := "".join(map(text_of, repeated))) and known.text.startswith(told):
                self.all.remove(known)
                for item in repeated:
                    self._named(self._new(known.kind, None), names_of(item), None).adopt(item)

    def matching(self, output: list[dict[str, Any]]) -> Iterator[tuple[OutputItem, dict[str, Any]]]:
        """Yield each item of a whole response with the one that it belongs to."""
        taken: list[OutputItem] = []
        for index, item in enumerate(output):
            left = [known for known in self.all if known.kind == kind_of(item) and known not in taken]
            named = [known for known in left if known.names.intersection(names_of(item))]
            placed = [known for known in left if known.index == index]
            known = next(iter(named or placed or left), None) or self._new(kind_of(item), index)
            taken.append(self._named(known, names_of(item), None))
            yield known, item

    def _open(self, kind: str) -> OutputItem:
        """Return the last item of a kind that is not done, or a new one."""
        still_open = [item for item in self.all if item.kind == kind and not item.is_done]
        return still_open[-1] if still_open else self._new(kind, None)

    def _new(self, kind: str, index: int | None) -> OutputItem:
        taken = {item.number for item in self.all if item.is_call}
        number = max(taken, default=-1) + 1 if index is None or index in taken else index
        self.all.append(OutputItem(kind, number))
        return self.all[-1]

    def _named(self, item: OutputItem, names: list[str], index: int | None) -> OutputItem:
        item.names.update(filter(None, names))
        item.index = index if item.index is None else item.index
        return item


def kind_of(item: Json) -> str:
    """Return the type of an item; xAI has omitted a message's."""
    return text(item.get("type")) or "message"


def names_of(item: Json) -> list[str]:
    """Return the ids of an item, the best first: a call's own id is the only one that no server changes."""
    return [name for name in (text(item.get("call_id")), text(item.get("id"))) if name]


def text_of(item: Json) -> str:
    """Return the text of the parts of a whole message or of whole reasoning."""
    parts = [*dicts(item.get("content"))] or [*dicts(item.get("summary"))]
    return "".join(text(part.get("text")) for part in parts)


def _as_json(words: str) -> str:
    return msgspec.json.encode(words).decode()
