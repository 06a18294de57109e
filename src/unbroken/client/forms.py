"""How each dialect puts a request: its path, its credentials, its body.

A conversation is given in the dialect's own form, which is also the form in which an answer's ``messages`` come back.
Every dialect also takes ``{"role": ..., "content": "text"}`` with the roles system, user and assistant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from unbroken.errors import UsageError

Message = Mapping[str, Any]

_VERSION = re.compile(r"/v\d+\w*$")

ANTHROPIC_VERSION = "2023-06-01"
"""Anthropic's API version (``anthropic-version``), which its documentation asks every request to name."""

DEFAULT_MAX_TOKENS = 8192
"""Anthropic demands a limit for the answer; this is sent where the caller names none."""


class Form(Protocol):
    """How one dialect puts a request."""

    def path(self, model: str) -> str:
        """What is appended to the base URL."""

    def credentials(self, key: str) -> dict[str, str]:
        """The headers that carry the key."""

    def body(self, model: str, messages: Sequence[Message], tools: Sequence[Message], counts: bool) -> dict[str, Any]:
        """The body of a streaming request.

        Args:
            model: which model.
            messages: the conversation.
            tools: tools in the dialect's form.
            counts: ask for token counts, where that must be asked.
        """


class ChatForm:
    """OpenAI's chat completions."""

    def path(self, model: str) -> str:  # noqa: ARG002 - the model is in the body
        """See :class:`Form`."""
        return "/chat/completions"

    def credentials(self, key: str) -> dict[str, str]:
        """See :class:`Form`."""
        return {"Authorization": f"Bearer {key}"}

    def body(self, model: str, messages: Sequence[Message], tools: Sequence[Message], counts: bool) -> dict[str, Any]:
        """See :class:`Form`."""
        body: dict[str, Any] = {"model": model, "messages": list(messages), "stream": True}
        if counts:
            body["stream_options"] = {"include_usage": True}
        return body | ({"tools": list(tools)} if tools else {})


class ResponsesForm:
    """OpenAI's Responses."""

    def path(self, model: str) -> str:  # noqa: ARG002 - the model is in the body
        """See :class:`Form`."""
        return "/responses"

    def credentials(self, key: str) -> dict[str, str]:
        """See :class:`Form`."""
        return {"Authorization": f"Bearer {key}"}

    def body(
        self,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[Message],
        counts: bool,  # noqa: ARG002 - it always counts
    ) -> dict[str, Any]:
        """See :class:`Form`."""
        body: dict[str, Any] = {"model": model, "input": list(messages), "stream": True}
        return body | ({"tools": list(tools)} if tools else {})


class AnthropicForm:
    """Anthropic's messages."""

    def path(self, model: str) -> str:  # noqa: ARG002 - the model is in the body
        """See :class:`Form`."""
        return "/v1/messages"

    def credentials(self, key: str) -> dict[str, str]:
        """See :class:`Form`."""
        return {"x-api-key": key, "anthropic-version": ANTHROPIC_VERSION}

    def body(
        self,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[Message],
        counts: bool,  # noqa: ARG002 - it always counts
    ) -> dict[str, Any]:
        """See :class:`Form`."""
        system, rest = _without_system(messages)
        body: dict[str, Any] = {"model": model, "messages": rest, "max_tokens": DEFAULT_MAX_TOKENS, "stream": True}
        if system:
            body["system"] = system
        return body | ({"tools": list(tools)} if tools else {})


class GeminiForm:
    """Google's Gemini."""

    def path(self, model: str) -> str:
        """See :class:`Form`."""
        return f"/v1beta/models/{model.removeprefix('models/')}:streamGenerateContent?alt=sse"

    def credentials(self, key: str) -> dict[str, str]:
        """See :class:`Form`; in a header, not in the URL, where it would end up in logs."""
        return {"x-goog-api-key": key}

    def body(
        self,
        model: str,  # noqa: ARG002 - it is in the path
        messages: Sequence[Message],
        tools: Sequence[Message],
        counts: bool,  # noqa: ARG002 - it always counts
    ) -> dict[str, Any]:
        """See :class:`Form`."""
        system, rest = _without_system(messages)
        body: dict[str, Any] = {"contents": [_as_content(message) for message in rest]}
        if system:
            body["systemInstruction"] = {"parts": [{"text": system}]}
        return body | ({"tools": list(tools)} if tools else {})


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "openai-chat": ChatForm(),
        "openai-responses": ResponsesForm(),
        "anthropic-messages": AnthropicForm(),
        "gemini": GeminiForm(),
    }
)
"""By the dialect's name."""


def endpoint(base_url: str, path: str) -> str:
    """The URL of a path below a base URL.

    The base URLs of Anthropic's and Google's own tools end before the API's version, those of OpenAI's behind it. Both
    are taken: a version at the end of the base URL stands for the one in the path.
    """
    version, _, rest = path.removeprefix("/").partition("/")
    has_version = _VERSION.search(base_url) and _VERSION.search(f"/{version}")
    return f"{base_url}/{rest}" if has_version else base_url + path


def find_form(dialect: str) -> Form:
    """The form of a dialect.

    Raises:
        UsageError: there is no such dialect; the message lists those there are.
    """
    try:
        return FORMS[dialect]
    except KeyError:
        raise UsageError(f"unknown dialect {dialect!r}; known are {', '.join(FORMS)}") from None


def _without_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """System messages stand apart in these dialects."""
    system = [message for message in messages if message.get("role") == "system"]
    texts = [message["content"] for message in system if isinstance(message.get("content"), str)]
    if len(texts) != len(system):
        raise UsageError("a system message's content must be text in this dialect")
    return "\n\n".join(texts), [message for message in messages if message.get("role") != "system"]


def _as_content(message: Message) -> Message:
    if "parts" in message or not isinstance(message.get("content"), str):
        return message
    role = "model" if message.get("role") == "assistant" else "user"
    return {"role": role, "parts": [{"text": message["content"]}]}
