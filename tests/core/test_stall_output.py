"""``stall_output``: a limit of the time without output, off by default, that rests while a tool of the server runs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from core.corpus import recordings
from core.playbook import (
    COMMENT,
    DONE,
    ROLE,
    START,
    STOP,
    Event,
    Playbook,
    answers,
    brings,
    ends,
    fails,
    is_lost,
    reads,
    speaks,
    text,
)
from core.test_pauses import PATHS, events_of
from unbroken.core.actions import EndTurn, Give, GiveHead, Read, Send
from unbroken.core.dialect import Generation
from unbroken.core.dialects import DIALECTS
from unbroken.core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from unbroken.core.dialects.openai_responses import OPENAI_RESPONSES
from unbroken.core.failures import Failure, Phase
from unbroken.core.http import Head
from unbroken.core.policy import Policy
from unbroken.core.sse import encode, parse
from unbroken.core.turn import Turn
from unbroken.errors import StreamCut

LIMIT = 60.0


def spoken(stall_output_timeout: float | None = LIMIT) -> Playbook:
    play = Playbook(stall_output_timeout=stall_output_timeout) >> answers() >> brings(ROLE, after=50)
    return play >> brings(text("Hel"), after=50) << speaks(ROLE + text("Hel"))


def is_away(seconds: float) -> Event:
    """The caller asks for more only now."""
    return Event(lambda turn, now: turn.resume(seconds, now), seconds, ())


class TestTheLimit:
    def test_runs_from_each_output_and_comments_do_not_feed_it(self) -> None:
        play = spoken() << reads(until=100 + LIMIT)
        play >> brings(COMMENT, after=30) << Give(COMMENT) << reads(until=100 + LIMIT)
        play >> brings(text("lo"), after=20) << Give(text("lo")) << reads(until=150 + LIMIT)
        play >> brings(COMMENT, after=50) << Give(COMMENT)
        play >> is_lost(Failure.DEADLINE, after=10)
        told = "no output came (none for 60 s, the limit of Policy.stall_output_timeout and --stall-output)"
        play << fails(StreamCut, told, retryable=True)
        assert play.attempts[0].failure == "stalled_output"
        assert not play.report.advice

    @pytest.mark.parametrize("choice", [{"hold": "answer"}, {"after_output": "restart", "may_restart": True}])
    def test_runs_anew_for_each_attempt(self, choice: dict[str, Any]) -> None:
        play = Playbook(stall_output_timeout=LIMIT, **choice) >> answers() >> brings(ROLE + text("Hel"))
        play.rest()
        play >> is_lost(Failure.RESET)
        play.rest()
        play >> answers(after=500) >> brings(ROLE + text("Hel"), after=5)
        asked = play.rest()[-1]
        assert isinstance(asked, Read)
        assert asked.limits.until == START + 505 + LIMIT

    def test_is_off_by_default(self) -> None:
        assert Policy().stall_output_timeout is None
        play = spoken(None) << reads(until=None)
        play >> brings(COMMENT, after=9999) << Give(COMMENT) << reads(until=None)

    def test_begins_with_the_first_output(self) -> None:
        play = Playbook(stall_output_timeout=LIMIT) >> answers() >> brings(ROLE + COMMENT, after=500)
        play << reads(until=900)

    def test_is_over_once_the_answer_has_settled(self) -> None:
        play = spoken() >> brings(STOP, after=5) << Give(STOP) << reads(until=105 + 20)
        play >> brings(DONE) << Give(DONE) >> ends() << EndTurn()

    def test_does_not_count_while_the_caller_is_away(self) -> None:
        play = spoken() << reads(until=100 + LIMIT)
        play = play >> is_away(500)
        play << reads(until=600 + LIMIT)


TOOLS = [
    ("anthropic-messages", "anthropic-web-search", rb'"server_tool_use","id"', rb"_tool_result"),
    ("anthropic-messages", "anthropic-code-execution", rb'"server_tool_use","id"', rb"_tool_result"),
    ("openai-responses", "openai-web-search", rb'_item\.added"[^\n]*web_search_call', rb"web_search_call\.completed"),
    (
        "openai-responses",
        "openai-code-interpreter",
        rb'_item\.added"[^\n]*code_interpreter_call',
        rb"code_interpreter_call\.completed",
    ),
    ("gemini", "gemini-code-execution", rb"executableCode", rb"codeExecutionResult"),
    ("interactions", "interactions-search", rb"google_search_call", rb"google_search_result"),
    ("interactions", "interactions-code-execution", rb"code_execution_call", rb"code_execution_result"),
]
"""Recordings in which the server runs a tool: from the event with the one mark to the event with the other."""


@pytest.mark.parametrize(("dialect", "name", "starts", "ends"), TOOLS, ids=[name for _, name, *_ in TOOLS])
def test_rests_while_the_server_runs_a_tool(dialect: str, name: str, starts: bytes, ends: bytes) -> None:
    found = next(one for one in DIALECTS if one.name == dialect)
    recording = next(one for one in recordings(dialect.replace("-", "_")) if one.name == name)
    call = recording.call(found, recording.facts.get("url", f"https://api.example.com{PATHS[dialect]}"))
    turn = Turn(call, Policy(stall_output_timeout=LIMIT), now=0.0, random=lambda: 0.0, wall_clock=lambda: 0.0)
    assert isinstance(turn.next(), Send)
    turn.head(Head(200, ((b"content-type", b"text/event-stream"),)), 0.0)
    runs, seen = False, []
    for block in events_of(recording.body):
        turn.data(block, 1.0)
        while isinstance(action := turn.next(), Give | GiveHead):
            pass
        runs = bool(re.search(starts, block)) or (runs and not re.search(ends, block))
        if turn.phase is Phase.OUTPUT:
            assert isinstance(action, Read)
            assert action.limits.until == (None if runs else 1.0 + LIMIT), block
            seen.append(runs)
    assert True in seen
    assert False in seen


@pytest.mark.parametrize("ends", ["response.mcp_call.failed", "response.output_item.done"])
def test_a_tool_that_fails_has_ended(ends: str) -> None:
    reader = OPENAI_RESPONSES.reader(Generation(streaming=True))
    item = {"id": "mcp_1", "type": "mcp_call"}
    for kind, fields, runs in [
        ("response.output_item.added", {"item": item}, True),
        ("response.mcp_call.in_progress", {"item_id": "mcp_1"}, True),
        ("response.output_item.added", {"item": {"id": "msg_1", "type": "message"}}, True),
        (ends, {"item_id": "mcp_1", "item": item}, False),
        ("response.output_item.added", {"item": {"id": "fc_1", "type": "function_call"}}, False),
    ]:
        [event] = parse(encode(json.dumps({"type": kind, **fields}), event=kind))
        reader.read(event)
        assert reader.runs_tool is runs, kind


def test_each_of_two_tools_must_end() -> None:
    reader = ANTHROPIC_MESSAGES.reader(Generation(streaming=True))
    blocks = [
        ({"type": "server_tool_use", "id": "a"}, True),
        ({"type": "mcp_tool_use", "id": "b"}, True),
        ({"type": "web_fetch_tool_result", "tool_use_id": "a"}, True),
        ({"type": "mcp_tool_result", "tool_use_id": "b"}, False),
        ({"type": "tool_use", "id": "c"}, False),  # the client's own
    ]
    for block, runs in blocks:
        [event] = parse(encode(json.dumps({"type": "content_block_start", "index": 0, "content_block": block})))
        reader.read(event)
        assert reader.runs_tool is runs, block
