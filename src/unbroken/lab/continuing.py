"""A model with a fixed text that is asked to continue it, and what servers do then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from unbroken.lab.answer import ScriptedAnswer

Manner = Literal[
    "goes_on",
    "echoes",
    "overlaps",
    "begins_anew",
    "goes_on_differently",
    "reasons",
    "refuses",
    "drops_space",
    "calls_a_tool",
]
"""What a server does when it is asked to continue a text; `Continuation` describes each."""

MANNERS: tuple[Manner, ...] = get_args(Manner)

_OVERLAP = 40


@dataclass(frozen=True, slots=True)
class Continuation:
    """How a server continues its text.

    Manners: ``goes_on`` (exactly behind the text that it was given), ``echoes`` (repeats that whole, then goes on),
    ``overlaps`` (repeats its last 40 characters), ``begins_anew`` (another answer, the same for half of the text),
    ``goes_on_differently``, ``reasons`` (reasoning first), ``refuses`` (400), ``drops_space`` (leaves out white space
    at the seam), ``calls_a_tool`` (no more text).

    In the style ``asked`` a message of the user asks for the rest of the assistant's message before it, in whatever
    words; no server has that style, but models do as they are told, and programs go on so by themselves.

    A request in another style than the server's is no request to continue: the answer begins anew. White space at the
    end of the text is refused in the style of Anthropic (`takes_space`).

    Args:
        style: ``prefix``, ``continue_final_message``, ``assistant``, ``completion`` or ``asked``.
        manner: what the server does.
        prompt: ``completion``: the prompt of the first request, behind which the text follows.
        takes_space: whether white space at the end of the text is accepted.
    """

    style: str = "assistant"
    manner: Manner = "goes_on"
    prompt: str = ""
    takes_space: bool = True

    def given(self, call: Mapping[str, Any]) -> str | None:
        """Return the text that a request asks to continue, ``None`` if it does not ask for that."""
        if self.style == "completion":
            prompt = call.get("prompt")
            begins = isinstance(prompt, str) and prompt.startswith(self.prompt) and prompt != self.prompt
            return str(prompt)[len(self.prompt) :] if begins else None
        messages = call.get("messages") or [{}]
        if self.style == "asked":
            messages = messages[:-1] or [{}]
        last = messages[-1]
        if last.get("role") != "assistant" or not isinstance(last.get("content"), str):
            return None
        if self.style == "prefix" and last.get("prefix") is not True:
            return None
        as_vllm = call.get("continue_final_message") is True and call.get("add_generation_prompt") is False
        return None if self.style == "continue_final_message" and not as_vllm else str(last["content"])

    def refuses(self, call: Mapping[str, Any]) -> bool:
        """Return whether a request is answered by 400."""
        given = self.given(call)
        if given is None or self.style == "asked":
            return False
        return self.manner == "refuses" or not given or (not self.takes_space and given != given.rstrip())

    def answer(self, answer: ScriptedAnswer, call: Mapping[str, Any]) -> ScriptedAnswer:
        """Return the answer to a request, given the whole answer."""
        given, text = self.given(call), "".join(answer.tokens)
        if given is None or not text.startswith(given) or (self.style == "asked" and given == text):
            return answer
        rest = _behind(answer.tokens, len(given))
        match self.manner:
            case "echoes":
                rest = (given, *rest)
            case "overlaps":
                rest = (given[-_OVERLAP:], *rest)
            case "begins_anew":
                rest = (given[: len(given) // 2], " Once more, otherwise.")
            case "goes_on_differently":
                rest = (" Something else.",)
            case "drops_space":
                rest = _behind(rest, len("".join(rest)) - len("".join(rest).lstrip()))
            case "calls_a_tool":
                return replace(answer, text=(), tool_calls=[("call_1", "look", ['{"at":', " 1}"])])
        reasoning = ("Let me think again.",) if self.manner == "reasons" else ()
        return replace(answer, text=rest, reasoning=reasoning)


def _behind(tokens: Sequence[str], length: int) -> tuple[str, ...]:
    """Return the tokens without their first characters."""
    rest = []
    for token in tokens:
        if kept := token[length:]:
            rest.append(kept)
        length = max(0, length - len(token))
    return tuple(rest)


def cut_at(answer: ScriptedAnswer, character: int) -> tuple[ScriptedAnswer, int]:
    """Return the answer with a token that ends at a character of its text, and how many tokens end there or before."""
    behind = _behind(answer.tokens, character)
    before = answer.tokens[: len(answer.tokens) - len(behind)]
    rest = "".join(answer.tokens)[len("".join(before)) : character]
    before = (*before, rest) if rest else before
    return replace(answer, text=(*before, *behind)), len(before)
