"""An answer of a real model on a path that cuts it twice in the middle: held, it is whole, and one attempt's."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

import unbroken
from unbroken.lab import CuttingProxy
from unbroken.lab.local_model import LocalModel

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("local model")]

QUESTION = {
    "messages": [{"role": "user", "content": "Describe the tide in four sentences, and then list three rivers."}],
    "stream": True,
    "max_tokens": 48,
    "temperature": 0,
}


def ask(proxy: CuttingProxy) -> tuple[bytes, Any]:
    """The bytes of the answer, and the report, through the transport of the SDKs."""
    transport = unbroken.Transport(proxy="", policy=unbroken.Policy(hold="answer"))
    with httpx2.Client(transport=transport, timeout=None) as client:
        response = client.post(f"http://127.0.0.1:{proxy.port}/v1/chat/completions", json=QUESTION)
    return response.content, response.extensions["unbroken"]


def said(body: bytes) -> tuple[set[str], str]:
    """The ids of the answers that the bytes belong to, and the text."""
    events = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in event["choices"]]
    return {event["id"] for event in events}, "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_two_cuts_in_the_middle_leave_one_whole_answer_of_one_attempt(local_model: LocalModel, how: Any) -> None:
    target = ("127.0.0.1", local_model.port)
    with CuttingProxy(target=target) as proxy:
        [_], whole = said(ask(proxy)[0])
        size = proxy.tunnels[0].bytes_down
    assert len(whole) > 100
    with CuttingProxy(target=target, cut_after=size * 2 // 3, how=how, cuts=2) as proxy:
        body, report = ask(proxy)
        assert proxy.cuts_made == 2
    ids, text = said(body)
    assert len(ids) == 1
    assert text == whole
    assert body.count(b'"role"') == body.count(b"[DONE]") == 1
    assert report.replays == 2
    assert [(attempt.phase, attempt.held) for attempt in report.attempts] == [
        ("output", True),
        ("output", True),
        ("complete", False),
    ]


def test_an_answer_that_begins_again_is_one_answer(local_model: LocalModel) -> None:
    target = ("127.0.0.1", local_model.port)
    policy = unbroken.Policy(after_output="restart")
    texts = []
    for cuts in (0, 2):
        with CuttingProxy(target=target, cut_after=4000, how="fin", cuts=cuts) as proxy:
            url = f"http://127.0.0.1:{proxy.port}/v1"
            with unbroken.Client("llama.cpp", base_url=url, proxy="", policy=policy) as client:
                prompt = str(QUESTION["messages"][0]["content"])  # type: ignore[index]
                with client.stream(prompt, max_tokens=48, temperature=0) as turn:
                    turn.read()
                texts.append(turn.text)
                assert len(turn.report.restarts) == proxy.cuts_made == cuts
    assert texts[0] == texts[1]
