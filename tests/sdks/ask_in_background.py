"""Ask for a response by the openai SDK, in every way that can be resumed. Runs where the SDKs are: ``URL WAY``.

Writes the numbers of the events that the SDK was given, and the text that it made of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from typing import Any

import openai

import unbroken

PLAIN = unbroken.Policy(backoff_initial=0.01)
ADDED = unbroken.Policy(backoff_initial=0.01, background=True)
ASKED: dict[str, Any] = {"model": "lab", "input": "Hello?"}


def client(url: str, policy: unbroken.Policy) -> openai.OpenAI:
    return unbroken.wrap(openai.OpenAI(api_key="sk-1", base_url=url, max_retries=0), policy=policy)


def told(events: Iterable[Any]) -> dict[str, Any]:
    found = list(events)
    pieces = [event.delta for event in found if event.type == "response.output_text.delta"]
    return {"numbers": [event.sequence_number for event in found], "text": "".join(pieces)}


def asked(url: str) -> dict[str, Any]:
    with client(url, PLAIN) as asking:
        return told(asking.responses.create(**ASKED, stream=True, background=True))


def added(url: str) -> dict[str, Any]:
    with client(url, ADDED) as asking:
        return told(asking.responses.create(**ASKED, stream=True))


def helper(url: str) -> dict[str, Any]:
    with client(url, ADDED) as asking, asking.responses.stream(**ASKED) as stream:
        found = told(stream)
        return found | {"text": stream.get_final_response().output_text}


def added_async(url: str) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        plain = openai.AsyncOpenAI(api_key="sk-1", base_url=url, max_retries=0)
        async with unbroken.wrap(plain, policy=ADDED) as asking:
            stream = await asking.responses.create(**ASKED, stream=True)
            return told([event async for event in stream])

    return asyncio.run(main())


def left(url: str) -> dict[str, Any]:
    with client(url, ADDED) as asking, asking.responses.create(**ASKED, stream=True) as stream:
        return told([event for event, _ in zip(stream, range(6), strict=False)])


sys.stdout.write(json.dumps(globals()[sys.argv[2]](sys.argv[1])))
