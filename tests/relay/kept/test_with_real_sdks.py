"""The retries of the real SDKs collect the turn whose connection was cut."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack

import pytest

from real.parts import missing
from relay.kept.clients import KEY, TEXT, Relays
from sdks import matrix
from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.proxy import CuttingProxy

PROGRAMS = {
    "openai": """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2])
messages = [{"role": "user", "content": "?"}]
stream = client.chat.completions.create(model="lab", messages=messages, stream=True)
print("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))
""",
    "openai, not streamed": """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2])
messages = [{"role": "user", "content": "?"}]
print(client.chat.completions.create(model="lab", messages=messages).choices[0].message.content)
""",
    "anthropic": """
import sys, anthropic
client = anthropic.Anthropic(base_url=sys.argv[1], api_key=sys.argv[2])
messages = [{"role": "user", "content": "?"}]
with client.messages.stream(model="lab", max_tokens=9, messages=messages) as stream:
    print("".join(stream.text_stream))
""",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_turn_that_was_cut_before_its_headers(in_memory: Relays, stack: ExitStack, program: str) -> None:
    if not matrix.python().exists():
        missing("the SDKs are missing; `make .venv-sdks` installs them")
    client = in_memory.serve(ScriptedAnswer(text=TEXT, think=1.5, think_at="before_headers"))
    way = stack.enter_context(CuttingProxy(target=("127.0.0.1", client.served.port), idle=0.3, cuts=1))
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [str(matrix.python()), "-c", PROGRAMS[program], f"http://127.0.0.1:{way.port}/lab", KEY]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)
    assert ran.stdout == f"{''.join(TEXT)}\n", ran.stderr[-2000:]
    assert way.cuts_made == 1
    assert in_memory.asked_upstream == 1
    assert client.served.entry()["outcome"] in ("collected", "answered")
