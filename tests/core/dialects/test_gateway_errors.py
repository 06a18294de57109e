"""What the relay says is what the dialect's own readers understand."""

from __future__ import annotations

import json

import pytest

from relay.asked import ANTHROPIC, CHAT, COMPLETIONS, DIALECTS, GEMINI, RESPONSES, Asked, events
from unbroken.core.dialect import Signal
from unbroken.core.dialects import DIALECTS as SPOKEN
from unbroken.lab.routes import DIALECTS as IN_THE_LAB
from unbroken.relay.voices import VOICES, GatewayError, voice_of

CUT = GatewayError(502, "stream_cut", 'the stream was cut "…"\n after 3.0 s')
LATE = GatewayError(429, "rate_limit_exceeded", "Slow down.")

OPENAI = (CHAT, RESPONSES, COMPLETIONS)


@pytest.fixture(params=DIALECTS, ids=str)
def asked(request: pytest.FixtureRequest) -> Asked:
    chosen: Asked = request.param
    return chosen


def test_every_dialect_has_one() -> None:
    assert VOICES.keys() == {dialect.name for dialect in SPOKEN} == {asked.name for asked in DIALECTS}
    assert voice_of(None) is voice_of("something else") is VOICES["openai-chat"]


class TestHeartbeats:
    def test_mean_nothing_to_the_rule(self, asked: Asked) -> None:
        beat = voice_of(asked.name).heartbeat
        assert set(asked.signals(beat * 3)) <= {Signal.SILENT}

    def test_are_whole_blocks(self, asked: Asked) -> None:
        beat = voice_of(asked.name).heartbeat
        assert beat.endswith(b"\n\n") or not beat
        assert b"\n\n" not in beat[:-2]

    @pytest.mark.parametrize("asked", OPENAI, ids=str)
    def test_are_comments_for_openai(self, asked: Asked) -> None:
        beat = voice_of(asked.name).heartbeat
        assert beat.startswith(b":")
        assert events(beat) == []

    def test_are_anthropics_own_ping(self) -> None:
        [event] = events(voice_of(ANTHROPIC.name).heartbeat)
        assert (event.type, json.loads(event.data)) == ("ping", {"type": "ping"})
        in_the_lab = next(dialect for dialect in IN_THE_LAB if dialect.answers("/v1/messages"))
        assert events(in_the_lab.heartbeat) == [event]

    def test_are_nothing_for_gemini(self) -> None:
        assert voice_of(GEMINI.name).heartbeat == b""


class TestErrorsAsABody:
    def test_are_what_the_dialect_takes_for_an_error(self, asked: Asked) -> None:
        [said] = asked.dialect.decoder().decode_whole(voice_of(asked.name).body(CUT))
        assert said.message == CUT.message
        refusal = asked.dialect.refusal(LATE.status, voice_of(asked.name).body(LATE))
        assert refusal.message == LATE.message

    @pytest.mark.parametrize("asked", OPENAI, ids=str)
    def test_in_openais_words(self, asked: Asked) -> None:
        assert json.loads(voice_of(asked.name).body(CUT)) == {
            "error": {"message": CUT.message, "type": "unbroken_error", "param": None, "code": "stream_cut"}
        }

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (408, "invalid_request_error"),
            (413, "request_too_large"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "api_error"),
            (504, "timeout_error"),
            (529, "overloaded_error"),
        ],
    )
    def test_in_anthropics_words(self, status: int, kind: str) -> None:
        said = json.loads(voice_of(ANTHROPIC.name).body(GatewayError(status, "code", "why")))
        assert said == {"type": "error", "error": {"type": kind, "message": "why"}}

    @pytest.mark.parametrize(
        ("status", "word"),
        [
            (400, "INVALID_ARGUMENT"),
            (401, "UNAUTHENTICATED"),
            (403, "PERMISSION_DENIED"),
            (404, "NOT_FOUND"),
            (413, "FAILED_PRECONDITION"),
            (429, "RESOURCE_EXHAUSTED"),
            (500, "INTERNAL"),
            (502, "UNAVAILABLE"),
            (503, "UNAVAILABLE"),
            (504, "DEADLINE_EXCEEDED"),
        ],
    )
    def test_in_googles_words(self, status: int, word: str) -> None:
        said = json.loads(voice_of(GEMINI.name).body(GatewayError(status, "code", "why")))
        assert said == {"error": {"code": status, "message": "why", "status": word}}


class TestErrorsInAStream:
    @pytest.mark.parametrize("trouble", [CUT, LATE], ids=["a cut", "a late refusal"])
    def test_are_an_error_and_nothing_else(self, asked: Asked, trouble: GatewayError) -> None:
        said = voice_of(asked.name).in_band(trouble)
        [signal] = asked.signals(said)
        assert signal & Signal.ERROR
        assert [error.message for error in asked.errors(said)] == [trouble.message]

    def test_are_noticed_after_output_too(self, asked: Asked) -> None:
        """There only what is notable is read."""
        assert asked.dialect.notable.search(voice_of(asked.name).in_band(CUT))

    @pytest.mark.parametrize("asked", [CHAT, COMPLETIONS, GEMINI], ids=str)
    def test_are_the_body_as_data(self, asked: Asked) -> None:
        voice = voice_of(asked.name)
        assert voice.in_band(CUT) == b"data: " + voice.body(CUT) + b"\n\n"

    def test_have_anthropics_name(self) -> None:
        [event] = events(voice_of(ANTHROPIC.name).in_band(CUT))
        assert event.type == "error"
        assert json.loads(event.data)["error"]["type"] == "api_error"

    def test_stand_in_either_place_where_clients_of_responses_look(self) -> None:
        [event] = events(voice_of(RESPONSES.name).in_band(CUT))
        assert event.type == "error"
        assert json.loads(event.data) == {
            "type": "error",
            "sequence_number": 0,
            "code": "stream_cut",
            "message": CUT.message,
            "param": None,
            "error": {"message": CUT.message, "type": "unbroken_error", "param": None, "code": "stream_cut"},
        }
