"""How many tokens a turn is worth that outlives its client: as reported, else as estimated."""

from __future__ import annotations

import pytest

from core.corpus import recordings
from relay.feeds import Feed
from relay.kept.clients import RETRY, TEXT, Client, Relays, is_whole
from relay.records import series
from unbroken.lab.answer import ScriptedAnswer
from unbroken.relay.kept.worth import BYTES_OF_TOKEN, TAIL, Worth, worth_of
from waiting import poll

DIALECTS = ("openai_chat", "openai_responses", "openai_completions", "anthropic_messages", "gemini", "interactions")

SHORT = ScriptedAnswer(text=TEXT, gap=0.005, usage={"prompt_tokens": 7, "completion_tokens": 31, "total_tokens": 38})
SILENT = ScriptedAnswer(text=TEXT, gap=0.005, usage=None)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_a_whole_answer_reports_is_read(dialect: str) -> None:
    found = 0
    for recording in recordings(dialect):
        reported = (recording.expect.get("usage") or {}).get("output_tokens")
        if reported and recording.expect["complete"]:
            worth = worth_of(len(recording.body), dialect.replace("_", "-"), recording.body[-TAIL:])
            assert worth == Worth(len(recording.body), reported, is_reported=True), recording.name
            found += 1
    assert found


@pytest.mark.parametrize(
    ("dialect", "tail"),
    [
        ("", b'data: {"choices": [], "usage": {"completion_tokens": 9}}\n\n'),
        ("openai-chat", b""),
        ("openai-chat", b'data: {"choices": []}\n\n'),
        ("openai-chat", b'tokens": 9}}\n\ndata: [DONE]\n\n'),
        ("openai-chat", b'data: {"choices": [], "usage": {"completion_tokens": -9}}\n\n'),
        ("openai-chat", b'data: {"choices": [], "usage": {"completion_tokens": 99999999999999999999}}\n\n'),
        ("openai-chat", b"data: " + b"[" * 20_000 + b"\n\n"),
        ("openai-chat", b"{" * 20_000),
        ("no such dialect", b"\xff\x00"),
    ],
)
def test_what_reports_nothing_is_estimated(dialect: str, tail: bytes) -> None:
    assert worth_of(1001, dialect, tail) == Worth(1001, 11, is_reported=False)


def test_an_answer_that_is_not_streamed_reports_too() -> None:
    body = b'{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},'
    body += b'"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}'
    assert worth_of(len(body), "openai-chat", body) == Worth(len(body), 2, is_reported=True)


def tokens(client: Client) -> dict[tuple[str, str], float]:
    """The tokens that the relay has counted, by event and source."""
    found = series(client.connect().ask("GET", "/_unbroken/metrics").body)
    return {
        (event, source): found[name]
        for event in ("kept", "collected", "dropped")
        for source in ("reported", "estimated")
        if (name := f"unbroken_kept_tokens_total{{event={event},source={source}}}") in found
    }


def test_a_turn_that_is_collected(relays: Relays) -> None:
    client = relays.serve(SHORT)
    feed = Feed(client.connect())
    assert "kept" not in feed.next("hello")
    left = client.leave(after=b"word1")
    assert is_whole(client.ask(*RETRY))
    found = poll(lambda: len(found := tokens(client)) == 2 and found)
    assert found["collected", "reported"] == 31
    assert 1 <= found["kept", "estimated"] <= 31 * 300 / BYTES_OF_TOKEN
    told = feed.next("kept", lambda told: "collected" in told["kept"])["kept"]
    assert told["collected"] == {"turns": 1, "tokens": 31}
    assert told["kept"] == {"turns": 1, "tokens": found["kept", "estimated"]}
    assert Feed(client.connect()).next("hello")["kept"] == told
    assert left.status == 200


def test_a_turn_that_nobody_comes_for(relays: Relays) -> None:
    client = relays.serve(SHORT, keep=1.0)
    client.leave(after=b"word1")
    found = poll(lambda: len(found := tokens(client)) == 2 and found)
    assert found["dropped", "reported"] == 31


def test_one_that_reports_nothing_is_estimated(relays: Relays) -> None:
    client = relays.serve(SILENT)
    client.leave(after=b"word1")
    answer = client.ask(*RETRY)
    assert is_whole(answer)
    found = poll(lambda: len(found := tokens(client)) == 2 and found)
    assert found["collected", "estimated"] == -(-len(answer.body) // BYTES_OF_TOKEN)
