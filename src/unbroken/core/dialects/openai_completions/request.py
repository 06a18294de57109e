"""Recognition of a legacy completion's request."""

from __future__ import annotations

from unbroken.core.dialect import Generation
from unbroken.core.http import Request
from unbroken.core.payload import RequestBody, asks_for_stream, count


def serves(path: str) -> bool:
    """Return whether completions are made at a path. At the root, llama.cpp has a format of its own."""
    path = path.rstrip("/")
    return path.endswith("/completions") and not path.endswith("/chat/completions") and path != "/completions"


def read_request(request: Request, body: RequestBody) -> Generation | None:  # noqa: ARG001 - the body is enough
    """Read a JSON object with a model or a prompt; ``None`` without either."""
    if body.keys().isdisjoint({"model", "prompt"}):
        return None
    return Generation(streaming=asks_for_stream(body), choices=_choices(body))


def _choices(body: RequestBody) -> int:
    """Return how many choices a request asks for: ``n`` for each of its prompts."""
    prompts = _prompts(body.get("prompt")) + _prompts(body.get("prompt_embeds"))
    return max(1, prompts) * max(1, count(body.get("n")) or 1)


def _prompts(prompt: object) -> int:
    """Return how many prompts a field holds: a list holds several, but a list of numbers is one, as tokens."""
    if not isinstance(prompt, list):
        return 0 if prompt is None else 1
    return 1 if any(isinstance(item, int) for item in prompt) else len(prompt)
