"""Token counts, which servers fill in different ways."""

from __future__ import annotations

from collections.abc import Iterator

from unbroken.core.events import Usage, UsageReport


def usage_of(
    *, prompt: int | None, completion: int | None, total: int | None, cached: int | None, reasoning: int | None
) -> Usage:
    """Convert counts in OpenAI's format; a total that cannot be is ignored (some servers send 0).

    xAI and Google leave reasoning out of the completion's tokens, but not out of the total.
    """
    output = completion
    if prompt is not None and total is not None and total - prompt >= (completion or 0):
        output = total - prompt
    return Usage(input_tokens=prompt, cached_tokens=cached, output_tokens=output, reasoning_tokens=reasoning)


def reported(usage: Usage) -> Iterator[UsageReport]:
    """Yield the report of token counts; none if no count could be read, for it would replace those before it."""
    if usage != Usage():
        yield UsageReport(usage)
