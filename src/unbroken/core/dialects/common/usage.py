"""Token counts in OpenAI's format, which servers fill in different ways."""

from __future__ import annotations

from unbroken.core.events import Usage


def usage_of(
    *, prompt: int | None, completion: int | None, total: int | None, cached: int | None, reasoning: int | None
) -> Usage:
    """Convert counts; a total that cannot be is ignored (some servers send 0).

    xAI and Google leave reasoning out of the completion's tokens, but not out of the total.
    """
    output = completion
    if prompt is not None and total is not None and total - prompt >= (completion or 0):
        output = total - prompt
    return Usage(input_tokens=prompt, cached_tokens=cached, output_tokens=output, reasoning_tokens=reasoning)
