"""Ask with the real SDKs, plain, through the transport and through the relay; say what each of them read.

    python ask.py < lines of JSON

It runs in the second virtual environment, for as long as it is asked: a line is a list of cases, and is answered by a
line with what came of them, in order. A case is an object of ``dialect``, ``request`` (the body), ``key`` (by which the
upstream knows what to answer), ``upstream`` and ``relay`` (origins), and ``ways`` (some of ``streams.WAYS``).
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import ssl
import sys
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import anthropic  # noqa: E402
import httpx2  # noqa: E402
import openai  # noqa: E402
from google import genai  # noqa: E402

import unbroken  # noqa: E402
from differential.streams import CASE  # noqa: E402
from unbroken import Policy  # noqa: E402

POLICY = Policy(replays=1, retries=1, backoff_initial=0.0, settle_timeout=0.2)
KEY = "sk-lab"
AT_ONCE = 4


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    ssl.create_default_context = functools.cache(ssl.create_default_context)  # there is no TLS, and this takes long
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    with contextlib.redirect_stdout(sys.stderr), ThreadPoolExecutor(AT_ONCE) as pool:
        for line in sys.stdin:
            answers.write(json.dumps(list(pool.map(asked, json.loads(line)))) + "\n")


def asked(case: dict[str, Any]) -> dict[str, Any]:
    return {way: outcome(case, way) for way in case["ways"]}


def outcome(case: dict[str, Any], way: str) -> dict[str, Any]:
    """What a program read, each object as JSON with sorted names, and the error that it got after it."""
    objects: list[str] = []
    error = None
    origin = case["relay"] if way == "relay" else case["upstream"]
    try:
        for item in SDKS[case["dialect"]](origin, case["request"], way, {CASE: f"{case['key']} {way}"}):
            objects.append(json.dumps(plainly(item), sort_keys=True))  # noqa: PERF401 - what came before an error counts
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is what the program gets
        error = f"{type(exc).__module__.partition('.')[0]}.{type(exc).__name__}: {exc}"[:500]
    return {"objects": objects, "error": error}


def plainly(item: Any) -> Any:
    """An SDK's object as values of JSON, whatever the types of its fields."""
    if hasattr(item, "model_fields"):
        fields = {
            name: value for name, value in item if name != "sdk_http_response"
        }  # whose headers are another matter
        return {name: plainly(value) for name, value in fields.items() if value is not None}
    if isinstance(item, dict):
        return {str(name): plainly(value) for name, value in item.items()}
    if isinstance(item, list | tuple):
        return [plainly(value) for value in item]
    return item if isinstance(item, str | int | float | bool | None) else str(item)


@functools.cache
def http(way: str) -> httpx2.Client:
    """An HTTP client for each way: the relay is asked by a plain one."""
    transport = unbroken.Transport(policy=POLICY, trust_env=False) if way == "transport" else None
    return httpx2.Client(transport=transport, timeout=20, trust_env=False)


@functools.cache
def openai_client(way: str, origin: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=KEY, base_url=f"{origin}/v1", http_client=http(way), max_retries=0)


@functools.cache
def anthropic_client(way: str, origin: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key=KEY, base_url=origin, http_client=http(way), max_retries=0)


@functools.cache
def google_client(way: str, origin: str) -> genai.Client:
    return genai.Client(api_key=KEY, http_options={"base_url": origin, "httpx_client": http(way)})


def chat(origin: str, request: dict[str, Any], way: str, headers: dict[str, str]) -> Iterable[Any]:
    client = openai_client(way, origin)
    return client.chat.completions.create(
        model="lab", messages=[], stream=True, extra_body=request, extra_headers=headers
    )


def completions(origin: str, request: dict[str, Any], way: str, headers: dict[str, str]) -> Iterable[Any]:
    client = openai_client(way, origin)
    return client.completions.create(model="lab", prompt="", stream=True, extra_body=request, extra_headers=headers)


def responses(origin: str, request: dict[str, Any], way: str, headers: dict[str, str]) -> Iterable[Any]:
    client = openai_client(way, origin)
    return client.responses.create(model="lab", input="", stream=True, extra_body=request, extra_headers=headers)


def messages(origin: str, request: dict[str, Any], way: str, headers: dict[str, str]) -> Iterable[Any]:
    client = anthropic_client(way, origin)
    asking = {"model": "lab", "max_tokens": 9, "messages": [], "stream": True}
    return client.messages.create(**asking, extra_body=request, extra_headers=headers)


def gemini(origin: str, request: dict[str, Any], way: str, headers: dict[str, str]) -> Iterator[Any]:
    options = {"headers": headers, "extra_body": request}
    client = google_client(way, origin)
    return client.models.generate_content_stream(model="lab", contents="Hello?", config={"http_options": options})


def interactions(origin: str, request: dict[str, Any], way: str, headers: dict[str, str]) -> Iterable[Any]:
    asking = {"model": "lab", "input": "Hello?", **request, "stream": True}
    if "agent" in asking:
        del asking["model"]
    client = google_client(way, origin)
    return client.interactions.create(**asking, automatic_continuation=False, extra_headers=headers)


SDKS = {
    "openai-chat": chat,
    "openai-completions": completions,
    "openai-responses": responses,
    "anthropic-messages": messages,
    "gemini": gemini,
    "interactions": interactions,
}

if __name__ == "__main__":
    main()
