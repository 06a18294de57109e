"""What a gateway says itself, heartbeats and errors, is what the dialect's own readers understand."""

from __future__ import annotations

import json

import pytest

from relay.asked import ANTHROPIC, CHAT, COMPLETIONS, DIALECTS, GEMINI, INTERACTIONS, RESPONSES, Asked, events
from unbroken.core.dialect import GatewayError, Signal
from unbroken.core.dialects import DEFAULT
from unbroken.core.dialects import DIALECTS as SPOKEN
from unbroken.lab.routes import DIALECTS as IN_THE_LAB

CUT = GatewayError(502, "stream_cut", 'the stream was cut "…"\n after 3.0 s')
LATE = GatewayError(429, "rate_limit_exceeded", "Slow down.")

OPENAI = (CHAT, RESPONSES, COMPLETIONS)


@pytest.fixture(params=DIALECTS, ids=str)
def asked(request: pytest.FixtureRequest) -> Asked:
    chosen: Asked = request.param
    return chosen


def test_every_dialect_is_asked_and_openais_is_for_what_has_none() -> None:
    assert {dialect.name for dialect in SPOKEN} == {asked.name for asked in DIALECTS}
    assert DEFAULT is CHAT.dialect


class TestHeartbeats:
    def test_mean_nothing_to_the_rule(self, asked: Asked) -> None:
        beat = asked.dialect.heartbeat
        assert set(asked.signals(beat * 3)) <= {Signal.SILENT}

    def test_are_whole_blocks(self, asked: Asked) -> None:
        beat = asked.dialect.heartbeat
        assert beat.endswith(b"\n\n") or not beat
        assert b"\n\n" not in beat[:-2]

    @pytest.mark.parametrize("asked", [*OPENAI, INTERACTIONS], ids=str)
    def test_are_comments_for_most(self, asked: Asked) -> None:
        beat = asked.dialect.heartbeat
        assert beat.startswith(b":")
        assert events(beat) == []

    def test_are_anthropics_own_ping(self) -> None:
        [event] = events(ANTHROPIC.dialect.heartbeat)
        assert (event.type, json.loads(event.data)) == ("ping", {"type": "ping"})
        in_the_lab = next(dialect for dialect in IN_THE_LAB if dialect.answers("/v1/messages"))
        assert events(in_the_lab.heartbeat) == [event]

    def test_are_nothing_for_gemini(self) -> None:
        assert GEMINI.dialect.heartbeat == b""


class TestErrorsAsABody:
    def test_are_what_the_dialect_takes_for_an_error(self, asked: Asked) -> None:
        [said] = asked.dialect.decoder().decode_whole(asked.dialect.error_body(CUT))
        assert said.message == CUT.message
        refusal = asked.dialect.read_error(LATE.status, asked.dialect.error_body(LATE))
        assert refusal.message == LATE.message

    @pytest.mark.parametrize("asked", OPENAI, ids=str)
    def test_in_openais_words(self, asked: Asked) -> None:
        assert json.loads(asked.dialect.error_body(CUT)) == {
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
        said = json.loads(ANTHROPIC.dialect.error_body(GatewayError(status, "code", "why")))
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
        said = json.loads(GEMINI.dialect.error_body(GatewayError(status, "code", "why")))
        assert said == {"error": {"code": status, "message": "why", "status": word}}

    @pytest.mark.parametrize(
        ("status", "word"),
        [
            (400, "invalid_request"),
            (401, "unauthenticated"),
            (403, "permission_denied"),
            (404, "not_found"),
            (413, "invalid_request"),
            (429, "too_many_requests"),
            (502, "service_unavailable"),
            (504, "gateway_timeout"),
        ],
    )
    def test_in_the_words_of_interactions(self, status: int, word: str) -> None:
        said = json.loads(INTERACTIONS.dialect.error_body(GatewayError(status, "code", "why")))
        assert said == {"error": {"message": "why", "code": word}}


class TestErrorsInAStream:
    @pytest.mark.parametrize("error", [CUT, LATE], ids=["a cut", "a late refusal"])
    def test_are_an_error_and_nothing_else(self, asked: Asked, error: GatewayError) -> None:
        said = asked.dialect.error_event(error)
        [signal] = asked.signals(said)
        assert signal & Signal.ERROR
        assert [failed.message for failed in asked.errors(said)] == [error.message]

    def test_are_noticed_after_output_too(self, asked: Asked) -> None:
        """There only what is notable is read."""
        assert asked.dialect.notable.search(asked.dialect.error_event(CUT))

    @pytest.mark.parametrize("asked", [CHAT, COMPLETIONS, GEMINI], ids=str)
    def test_are_the_body_as_data(self, asked: Asked) -> None:
        dialect = asked.dialect
        assert dialect.error_event(CUT) == b"data: " + dialect.error_body(CUT) + b"\n\n"

    def test_have_anthropics_name(self) -> None:
        [event] = events(ANTHROPIC.dialect.error_event(CUT))
        assert event.type == "error"
        assert json.loads(event.data)["error"]["type"] == "api_error"

    def test_have_their_name_in_an_interaction(self) -> None:
        [event] = events(INTERACTIONS.dialect.error_event(CUT))
        assert event.type == "error"
        assert json.loads(event.data) == {
            "error": {"message": CUT.message, "code": "service_unavailable"},
            "event_type": "error",
        }

    def test_stand_in_either_place_where_clients_of_responses_look(self) -> None:
        [event] = events(RESPONSES.dialect.error_event(CUT))
        assert event.type == "error"
        assert json.loads(event.data) == {
            "type": "error",
            "sequence_number": 0,
            "code": "stream_cut",
            "message": CUT.message,
            "param": None,
            "error": {"message": CUT.message, "type": "unbroken_error", "param": None, "code": "stream_cut"},
        }
