"""One module an SDK: how people ask with it, plain and with Unbroken. They run in the second virtual environment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from unbroken import Policy

Ask = Callable[[str, Policy | None], str | Awaitable[str]]
"""Ask the server at an origin (``http://host:port``) and return the text, as far as it came. No policy: no Unbroken."""

KEY = "sk-lab"
MODEL = "lab"
MESSAGES = [{"role": "user", "content": "Hello?"}]
TEXT = "Hello from the lab."


@dataclass(frozen=True)
class Face:
    """One way of asking with an SDK.

    Attributes:
        name: the SDK and the call.
        dialect: what it speaks.
        ask: the call itself.
        streams: whether it asks for a stream.
        text: what the server answers, and what `ask` is to return.
        errors: the packages whose errors a caller of this SDK has to expect.
    """

    name: str
    dialect: str
    ask: Ask
    streams: bool = True
    text: str = TEXT
    errors: tuple[str, ...] = ()


def text_of(pieces: list[str | None]) -> str:
    return "".join(piece or "" for piece in pieces)
