"""What a client is sent of a cut in the middle of its answer, by its name."""

from __future__ import annotations

import pytest

from relay.serving import Call, Serve
from unbroken.lab import Fault, Upstream
from unbroken.relay.errors import needs_no_event


@pytest.mark.parametrize(
    ("user_agent", "alone"),
    [
        ("Go-http-client/1.1", True),
        ("Go-http-client/2.0", True),
        ("QwenCode/0.24.4 (linux; x64)", True),
        ("OpenAI/Python 3.54.0", False),
        ("opencode/1.18.33 ai-sdk/provider-utils/4.0.23", False),
        ("my agent (Go-http-client/1.1)", False),
        ("", False),
    ],
)
def test_who_is_told_by_the_broken_connection_alone(serve: Serve, call: Call, user_agent: str, alone: bool) -> None:
    assert needs_no_event(user_agent.encode()) is alone
    with Upstream(faults=[Fault("fin", "after_token")]) as upstream:
        answer = call(serve(upstream.url)).ask_json(
            "/v1/chat/completions",
            {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello?"}]},
            [("User-Agent", user_agent)] if user_agent else [],
        )
        assert not answer.whole
        assert b"Hello" in answer.body
        assert (b"stream_cut" in answer.body) is not alone
