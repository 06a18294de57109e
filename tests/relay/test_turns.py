"""One turn between a scripted upstream and a recorded client: how it ends, what is told, what is known of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
import trio

from relay.asked import ANTHROPIC, CHAT, DIALECTS, GEMINI, RESPONSES, Asked
from relay.staging import (
    ANSWER,
    BEAT,
    DONE,
    END,
    ENDING,
    JSON,
    OK,
    ROLE,
    SLOW_DOWN,
    STOP,
    TOKEN,
    Script,
    Stage,
    at,
    head,
    in_virtual_time,
    lost,
    perform,
)
from unbroken.core.deadlines import READ_REFUSAL
from unbroken.core.dialect import Signal
from unbroken.core.failures import Failure, Phase
from unbroken.core.policy import Policy
from unbroken.errors import UsageError
from unbroken.lab import ScriptedAnswer
from unbroken.lab.routes import DIALECTS as IN_THE_LAB
from unbroken.relay.recorder import Outcome, RequestRecord
from unbroken.relay.turns import LAST_WORDS

REFUSED = lost(Failure.CONNECTION_REFUSED)
TRANSIENT = b'data: {"error": {"type": "overloaded_error", "message": "Overloaded."}}\n\n'
PERMANENT = b'data: {"error": {"type": "invalid_request_error", "message": "Too long."}}\n\n'
WHOLE = b'{"choices": []}'
ONCE = Policy(retries=0, replays=0)


@pytest.fixture(params=[True, False], ids=["poured", "sent"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "pours", request.param)


def leaves(stage: Stage) -> None:
    stage.client.leave()


def stops(stage: Stage) -> None:
    stage.stop()


class TestAnAnswer:
    def test_is_the_whole_of_one_attempt(self) -> None:
        stage = perform([OK, ROLE, lost()], [head(200, x_request_id="req_2"), *ANSWER])
        assert (stage.client.status, stage.client.value("x-request-id")) == (200, "req_2")
        assert stage.client.body == ROLE + TOKEN + STOP + DONE
        assert stage.client.whole
        assert stage.record.outcome is Outcome.ANSWERED
        assert stage.record.saved

    def test_carries_the_report(self) -> None:
        stage = perform([head(503, retry_after="1"), END], [OK, ROLE, lost()], [OK, *ANSWER])
        told = {name: value for name, value in stage.client.headers if name.startswith("x-unbroken-")}
        assert told == {
            "x-unbroken-turn": "cafe0001",
            "x-unbroken-retries": "1",
            "x-unbroken-replays": "1",
            "x-unbroken-lost": "busy@headers, reset@prelude",
        }

    @pytest.mark.parametrize("ending", [lost(), 99.0], ids=["reset", "silence"])
    def test_that_has_settled_cannot_be_lost(self, ending: Any) -> None:
        stage = perform([OK, ROLE, TOKEN, STOP, ending])
        assert (stage.client.body.replace(BEAT, b""), stage.client.whole) == (ROLE + TOKEN + STOP, True)
        assert stage.record.outcome is Outcome.ANSWERED
        assert stage.turn.driver.report.losses == ()

    def test_gets_no_terminator_that_was_not_sent(self) -> None:
        stage = perform([OK, ROLE, TOKEN, STOP, END])
        assert DONE not in stage.client.body
        assert stage.client.whole

    def test_in_one_piece(self) -> None:
        stage = perform([JSON, b'{"choi', lost()], [JSON, 3.0, b'{"choices"', 4.0, b": []}", END], streaming=False)
        assert stage.client.pieces == [WHOLE]
        assert stage.client.whole
        assert stage.client.value("x-unbroken-lost") == "reset@prelude"
        assert (stage.record.outcome, stage.record.first_output) == (Outcome.ANSWERED, 7.0)

    def test_after_heartbeats_is_the_same_stream(self) -> None:
        stage = perform([OK, ROLE, 20.0, lost()], [20.0, OK, 20.0, *ANSWER])
        assert stage.client.body.replace(BEAT, b"") == ROLE + TOKEN + STOP + DONE
        assert stage.client.whole
        assert stage.client.value("x-unbroken-lost") is None
        assert stage.facts == [("reset", "prelude"), (None, "complete")]


Row = tuple[list[Script], dict[str, Any], Outcome, int]

HANDED_ON: dict[str, Row] = {
    "a refusal": ([[head(401, "application/json"), b"{}", END]], {}, Outcome.REFUSED, 401),
    "a redirect": ([[head(307, location="/"), END]], {}, Outcome.REFUSED, 307),
    "a status that stays": (
        [[head(429, "application/json"), SLOW_DOWN, END]],
        {"policy": ONCE},
        Outcome.REFUSED,
        429,
    ),
    "a late status": ([[31.0, head(504), b"late", END]], {"policy": ONCE}, Outcome.REFUSED, 504),
    "a page": ([[head(200, "text/html"), b"<p>", END]], {}, Outcome.UNEXPECTED, 200),
    "an error in the stream": ([[OK, ROLE, PERMANENT, END]], {}, Outcome.FAILED, 200),
    "an error after output": ([[OK, ROLE, TOKEN, TRANSIENT, END]], {}, Outcome.FAILED, 200),
    "an error that stays": ([[OK, TRANSIENT, END]], {"policy": ONCE}, Outcome.FAILED, 200),
}


@pytest.mark.parametrize(("scripts", "options", "outcome", "status"), HANDED_ON.values(), ids=HANDED_ON)
class TestWhatIsHandedOn:
    def test_is_what_came(self, scripts: list[Script], options: Any, outcome: Outcome, status: int) -> None:
        stage = perform(*scripts, **options)
        came = b"".join(piece for piece in scripts[-1] if isinstance(piece, bytes))
        assert (stage.client.status, stage.client.body, stage.client.whole) == (status, came, True)
        assert stage.client.value("x-should-retry") is None
        assert stage.raised is None
        assert (stage.record.outcome, stage.turn.detail) == (outcome, "")

    def test_has_a_first_output_only_if_the_model_spoke(
        self, scripts: list[Script], options: Any, outcome: Outcome, status: int
    ) -> None:
        assert (perform(*scripts, **options).record.first_output is not None) is (TOKEN in scripts[-1])


def test_a_status_that_was_tried_again_here_is_not_tried_again_by_the_client() -> None:
    script: Script = [head(504, "application/json"), b"{}", END]
    stage = perform(*[script] * 4)
    assert (len(stage.wire.exchanges), stage.client.status, stage.client.body) == (4, 504, b"{}")
    assert stage.client.value("x-should-retry") == "false"


def test_unless_the_provider_says_what_it_should() -> None:
    script: Script = [head(504, "application/json", x_should_retry="true"), b"{}", END]
    assert perform(*[script] * 4).client.value("x-should-retry") == "true"


def test_a_wait_that_is_too_long_is_the_clients_to_decide_on() -> None:
    stage = perform([head(429, "application/json", retry_after="61"), SLOW_DOWN, END])
    assert (stage.client.status, stage.client.value("retry-after")) == (429, "61")
    assert len(stage.wire.exchanges) == 1


FAILED: dict[str, Row] = {
    "lost before the headers": ([[lost()]] * 4, {}, Outcome.LOST, 502),
    "lost in the prelude": ([[OK, ROLE, lost()]] * 4, {}, Outcome.LOST, 502),
    "ended in the prelude": ([[OK, ROLE, END]], {"policy": ONCE}, Outcome.LOST, 502),
    "too slow": ([[OK, ROLE]], {"policy": Policy(first_output_timeout=14)}, Outcome.TIMED_OUT, 504),
    "too slow to answer": ([[]], {"policy": Policy(first_output_timeout=100)}, Outcome.TIMED_OUT, 504),
    "nobody there": ([[REFUSED]] * 9, {}, Outcome.UNREACHABLE, 502),
    "a bad certificate": ([[lost(Failure.CERTIFICATE)]], {}, Outcome.UNREACHABLE, 502),
    "no JSON": ([[OK, b"data: {\n\n"]], {}, Outcome.MALFORMED, 502),
    "half a document": ([[JSON, b"{", END]], {"policy": ONCE, "streaming": False}, Outcome.LOST, 502),
    "a misconfigured relay": ([[UsageError("no such CA file")]], {}, Outcome.UNREACHABLE, 500),
}


@pytest.mark.parametrize(("scripts", "options", "outcome", "status"), FAILED.values(), ids=FAILED)
class TestAFailureBeforeAnythingIsPromised:
    def test_is_a_status_with_an_error_in_the_dialects_words(
        self, scripts: list[Script], options: Any, outcome: Outcome, status: int
    ) -> None:
        stage = perform(*scripts, **options)
        assert (stage.client.status, stage.client.whole, stage.raised) == (status, True, None)
        [error] = CHAT.dialect.decoder().decode_whole(stage.client.body)
        assert error.message == stage.turn.detail != ""
        assert stage.record.outcome is outcome
        assert stage.record.first_output is None

    def test_is_nothing_that_a_client_should_try_again(
        self, scripts: list[Script], options: Any, outcome: Outcome, status: int
    ) -> None:
        stage = perform(*scripts, **options)
        assert stage.client.value("x-should-retry") == "false"

    def test_carries_the_whole_report(self, scripts: list[Script], options: Any, outcome: Outcome, status: int) -> None:
        stage = perform(*scripts, **options)
        losses = [f"{attempt.failure}@{attempt.phase}" for attempt in stage.record.attempts]
        assert len(losses) == len(stage.wire.exchanges)
        assert stage.client.value("x-unbroken-lost") == ", ".join(losses)


@pytest.mark.parametrize("asked", DIALECTS, ids=str)
@pytest.mark.parametrize("streaming", [True, False])
def test_a_final_failure_in_every_dialects_words(asked: Asked, streaming: bool) -> None:
    stage = perform([lost()], asked=asked, streaming=streaming, policy=ONCE)
    assert stage.client.status == 502
    assert "no replays allowed" in asked.dialect.read_error(502, stage.client.body).message


class TestACutAfterOutput:
    def test_keeps_what_came_and_says_so(self) -> None:
        stage = perform([OK, ROLE, TOKEN, 5.0, lost()])
        error = stage.client.body.removeprefix(ROLE + TOKEN)
        [said] = CHAT.errors(error)
        cut = "the stream was cut after 5.0 s, after output: the answer is not whole: connection reset"
        assert said.message == f"connection lost: {cut}"
        assert stage.record.detail == cut
        assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "stream_cut"
        assert stage.raised
        assert not stage.client.whole
        assert (stage.record.outcome, stage.record.first_output) == (Outcome.CUT, 0)

    @pytest.mark.parametrize("ending", [END, lost(Failure.TRUNCATED), lost(Failure.IDLE_TIMEOUT)])
    def test_however_politely(self, ending: Any) -> None:
        stage = perform([OK, ROLE, TOKEN, ending])
        assert stage.record.outcome is Outcome.CUT
        assert len(stage.wire.exchanges) == 1
        assert not stage.client.whole

    @pytest.mark.parametrize("half", [STOP[:-2], STOP[:-1], b"data: [DONE]", DONE[:-1], b'data: {"cho', b"data: [DO"])
    def test_leaves_no_half_an_ending_behind(self, half: bytes) -> None:
        stage = perform([OK, ROLE, TOKEN, half, lost()])
        said = CHAT.errors(stage.client.body)
        assert len(said) == 1
        assert stage.client.body.startswith(ROLE + TOKEN + b'data: {"error"')

    @pytest.mark.parametrize("asked", DIALECTS, ids=str)
    def test_at_any_byte_of_the_ending_leaves_whole_events_and_the_error(self, asked: Asked) -> None:
        lab = next(dialect for dialect in IN_THE_LAB if dialect.answers(asked.path.partition("?")[0]))
        told = lab.pieces(ScriptedAnswer(text="Hi"), 1)
        spoken = told.prelude + b"".join(told.told)
        for cut in range(0, told.finish.index(b"\n\n") + 2, 3):
            stage = perform([OK, spoken, told.finish[:cut], lost()], asked=asked)
            signals = asked.signals(stage.client.body)  # which raises where an event is only half
            assert stage.client.body.startswith(spoken)
            assert signals[-1] & Signal.ERROR
            assert not any(signal & (Signal.SETTLES | Signal.ENDS) for signal in signals)

    def test_invents_no_ending_for_one_that_was_not_told(self) -> None:
        stage = perform([OK, ROLE, TOKEN, DONE, END])
        assert b"DONE" not in stage.client.body
        assert b'"stop"' not in stage.client.body
        assert stage.record.outcome is Outcome.CUT

    def test_of_a_document_that_went_through_is_a_broken_connection(self) -> None:
        stage = perform([head(200, "text/html", content_length="99"), b"<p>", lost()])
        assert (stage.client.body, stage.client.whole) == (b"<p>", False)
        assert stage.raised
        assert stage.record.outcome is Outcome.CUT


class TestAFailureAfterHeartbeats:
    @pytest.mark.parametrize(
        ("scripts", "options", "outcome"),
        [
            ([[OK, 20.0, lost()]], {"policy": ONCE}, Outcome.LOST),
            ([[OK, 20.0, lost()], *[[REFUSED]] * 9], {}, Outcome.UNREACHABLE),
            ([[OK, 20.0, lost()], [OK, ROLE]], {}, Outcome.TIMED_OUT),
            ([[OK, 20.0, b"data: {\n\n"]], {}, Outcome.MALFORMED),
        ],
        ids=["lost", "unreachable", "timed out", "malformed"],
    )
    def test_is_an_event_and_a_broken_connection(self, scripts: Any, options: Any, outcome: Outcome) -> None:
        stage = perform(*scripts, **options)
        assert (stage.client.status, stage.client.whole) == (200, False)
        assert stage.raised
        [error] = CHAT.errors(stage.client.body)
        assert error.message == stage.turn.detail
        assert stage.record.outcome is outcome

    @pytest.mark.parametrize("asked", [asked for asked in DIALECTS if asked is not GEMINI], ids=str)
    def test_in_every_dialects_words(self, asked: Asked) -> None:
        stage = perform([OK, 20.0, lost()], asked=asked, policy=ONCE)
        beat = asked.dialect.heartbeat
        assert stage.client.body.startswith(beat)
        [error] = asked.errors(stage.client.body)
        assert "before any output" in error.message


LATE: dict[Asked, bytes] = {
    CHAT: SLOW_DOWN,
    RESPONSES: SLOW_DOWN,
    ANTHROPIC: b'{"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}, "request_id": "r"}',
}


class TestALateRefusal:
    """The first attempt was lost after heartbeats, and the second one was refused."""

    def late(self, *script: Any, **options: Any) -> Stage:
        return perform([OK, 20.0, lost()], script, **{"policy": Policy(replays=1, retries=0), **options})

    @pytest.mark.parametrize("asked", LATE, ids=str)
    def test_is_told_in_the_providers_own_words(self, asked: Asked) -> None:
        stage = self.late(head(429, "application/json"), LATE[asked], END, asked=asked)
        [error] = asked.errors(stage.client.body)
        assert (error.message, error.transient) == ("Slow down.", True)
        provider = json.loads(LATE[asked])
        told = json.loads(stage.client.body.rpartition(b"data: ")[2])
        assert {name: told[name] for name in provider} == provider
        assert stage.raised
        assert stage.record.outcome is Outcome.REFUSED

    def test_leaves_the_providers_words_out_of_the_log(self) -> None:
        """They may quote the request."""
        stage = self.late(head(429), SLOW_DOWN, END)
        assert stage.turn.detail == stage.record.detail == "HTTP 429, too late for a status"

    @pytest.mark.parametrize("ends", [leaves, stops])
    def test_leaves_them_out_also_where_its_client_does_not_read(self, ends: Any) -> None:
        stage = self.late(
            head(403, "application/json"),
            b'{"error": {"message": "you said SECRET"}}',
            END,
            others=[at(19, lambda stage: stage.client.stop_reading()), at(30, ends)],
        )
        assert "SECRET" not in stage.record.detail

    def test_that_is_no_error_of_the_dialect_is_one_in_the_stream(self) -> None:
        stage = self.late(head(502, "text/html"), b"<h1>Bad Gateway</h1>", END)
        [error] = CHAT.errors(stage.client.body)
        assert error.message == "HTTP 502"
        assert json.loads(stage.client.body.rpartition(b"data: ")[2])["error"]["code"] == "provider_error"

    @pytest.mark.parametrize(
        ("ending", "seconds"),
        [(lost(), 0), (99.0, READ_REFUSAL), (b"x" * 100_000, 0)],
        ids=["a cut", "silence", "endless words"],
    )
    def test_is_told_without_its_body_where_that_does_not_come(self, ending: Any, seconds: float) -> None:
        stage = self.late(head(401), ending)
        [error] = CHAT.errors(stage.client.body)
        assert error.message == "HTTP 401"
        assert stage.record.outcome is Outcome.REFUSED
        assert stage.ended == 20 + seconds
        assert stage.wire.exchanges[-1].closed_at == stage.ended

    @pytest.mark.parametrize("other", [head(200, "text/html"), head(302), head(200, "")], ids=repr)
    def test_another_kind_of_answer_is_an_error_too(self, other: Any) -> None:
        stage = self.late(other, b"<p>", END)
        [error] = CHAT.errors(stage.client.body)
        assert error.message.startswith(f"the server answered {other.status} with")
        assert stage.record.outcome is Outcome.UNEXPECTED
        assert not stage.client.whole


# The client leaves

PHASES: dict[str, tuple[list[Script], float, list[tuple[str, str]]]] = {
    "before the headers": ([[]], 3, [("cancelled", "headers")]),
    "in the prelude": ([[OK, ROLE]], 3, [("cancelled", "prelude")]),
    "after heartbeats": ([[OK, ROLE]], 33, [("cancelled", "prelude")]),
    "after output": ([[OK, ROLE, TOKEN]], 3, [("cancelled", "output")]),
    "after settling": ([[OK, ROLE, TOKEN, STOP]], 3, [("cancelled", "settled")]),
    "in a wait": ([[head(503, retry_after="50"), END]], 3, [("busy", "headers"), ("cancelled", "connect")]),
    "in the second attempt": ([[OK, lost()], [OK]], 3, [("reset", "prelude"), ("cancelled", "prelude")]),
    "while an error is read": ([[head(503)]], 3, [("cancelled", "prelude")]),
}


@pytest.mark.parametrize(("scripts", "after", "facts"), PHASES.values(), ids=PHASES)
class TestAClientThatLeaves:
    def test_ends_the_upstreams_request_at_once(
        self, scripts: list[Script], after: float, facts: list[tuple[str, str]]
    ) -> None:
        stage = perform(*scripts, others=[at(after, leaves), at(100, lambda stage: None)])
        assert stage.ended == after
        whole = facts == [("cancelled", "settled")]  # it has all there is to have
        assert stage.record.outcome is (Outcome.ANSWERED if whole else Outcome.LEFT)
        assert stage.facts == facts
        assert stage.record.elapsed == after
        assert len(stage.wire.exchanges) == len(scripts)
        assert all(exchange.closed_at is not None for exchange in stage.wire.exchanges)
        assert stage.wire.exchanges[-1].closed_at in (0, after)

    def test_is_told_nothing_more(self, scripts: list[Script], after: float, facts: list[tuple[str, str]]) -> None:
        def is_there(stage: Stage) -> None:
            told.extend(stage.client.pieces)

        told: list[bytes] = []
        stage = perform(*scripts, others=[at(after - 0.5, is_there), at(after, leaves), at(100, lambda stage: None)])
        assert stage.client.pieces == told
        assert not stage.client.whole


class TestAServerThatTellsByAnErrorThatTheClientHasGone:
    """ASGI specification, "Disconnected client - send exception"."""

    def gone(self, stage: Stage) -> None:
        stage.client.fails = OSError("gone")

    def test_has_told_so(self) -> None:
        stage = perform([OK, ROLE, TOKEN, 5.0, TOKEN, 5.0, *ENDING], others=[at(1, self.gone)])
        assert (stage.ended, stage.record.outcome, stage.raised) == (5, Outcome.LEFT, None)
        assert stage.wire.exchanges[0].closed_at == 5
        assert stage.facts == [("cancelled", "output")]

    def test_also_of_one_that_is_told_of_a_failure(self) -> None:
        stage = perform([OK, ROLE, TOKEN, 5.0, lost()], others=[at(1, self.gone)])
        assert (stage.ended, stage.record.outcome) == (5, Outcome.CUT)
        assert stage.raised


class TestAClientThatDoesNotRead:
    def test_may_leave_as_well(self) -> None:
        def stops_reading(stage: Stage) -> None:
            stage.client.stop_reading()

        stage = perform([OK, ROLE, TOKEN, 5.0, TOKEN, 5.0, TOKEN], others=[at(1, stops_reading), at(30, leaves)])
        assert (stage.ended, stage.record.outcome) == (30, Outcome.LEFT)
        assert stage.client.pieces == [ROLE + TOKEN]
        assert stage.wire.exchanges[0].closed_at == 30

    def test_holds_the_upstream_up(self) -> None:
        """What is not read downstream is not read upstream."""

        def stops_reading(stage: Stage) -> None:
            stage.client.stop_reading()

        left: list[int] = []

        def looks(stage: Stage) -> None:
            left.append(len(stage.wire.exchanges[0]._script))

        script = [OK, ROLE, TOKEN, *[1.0, TOKEN] * 100]
        perform(script, others=[at(10.5, stops_reading), at(11.5, looks), at(90, looks), at(91, leaves)])
        assert left[0] == left[1] > 150

    def test_has_not_been_answered_before_it_has_taken_the_end(self) -> None:
        def stops_reading(stage: Stage) -> None:
            stage.client.stop_reading()

        stage = perform([OK, ROLE, TOKEN, STOP, 1.0, END], others=[at(0.5, stops_reading), at(30, leaves)])
        assert stage.record.outcome is Outcome.LEFT


# The relay is stopped


class TestTheRelayStops:
    def test_before_anything_is_promised(self) -> None:
        stage = perform([OK, ROLE], others=[at(3, stops)])
        assert (stage.client.status, stage.client.whole, stage.cancelled) == (503, True, True)
        assert "the relay was stopped" in CHAT.dialect.read_error(503, stage.client.body).message
        assert stage.client.value("x-should-retry") is None
        assert (stage.ended, stage.record.outcome) == (3, Outcome.STOPPED)
        assert stage.facts == [("cancelled", "prelude")]

    @pytest.mark.parametrize("scripts", [[[OK, ROLE, TOKEN]], [[OK, ROLE]]], ids=["after output", "after heartbeats"])
    def test_after_that(self, scripts: list[Script]) -> None:
        stage = perform(*scripts, others=[at(33, stops)])
        [error] = CHAT.errors(stage.client.body)
        assert error.message == "the relay was stopped"
        assert not stage.client.whole
        assert (stage.cancelled, stage.ended, stage.record.outcome) == (True, 33, Outcome.STOPPED)

    def test_during_a_wait(self) -> None:
        stage = perform([head(503, retry_after="50"), END], others=[at(3, stops)])
        assert (stage.client.status, stage.ended, stage.record.outcome) == (503, 3, Outcome.STOPPED)
        assert stage.client.value("x-unbroken-retries") == "1"

    def test_and_does_not_wait_for_a_client_that_does_not_read(self) -> None:
        def stops_reading(stage: Stage) -> None:
            stage.client.stop_reading()

        stage = perform([OK, ROLE, TOKEN, 5.0, TOKEN], others=[at(1, stops_reading), at(30, stops)])
        assert (stage.ended, stage.record.outcome) == (30 + LAST_WORDS, Outcome.STOPPED)
        assert stage.wire.exchanges[0].closed_at == 30

    def test_when_all_was_said(self) -> None:
        stage = perform([OK, *ANSWER], others=[at(3, stops)])
        assert (stage.cancelled, stage.record.outcome) == (False, Outcome.ANSWERED)


# What is known of it


def looked_at(*scripts: Script, times: Sequence[float], **options: Any) -> list[RequestRecord]:
    """The records of a turn at these moments."""
    seen: list[RequestRecord] = []

    def looks(stage: Stage) -> None:
        seen.append(stage.turn.record())

    perform(*scripts, others=[*(at(time, looks) for time in times), at(times[-1], leaves)], **options)
    return seen


class TestTheRecord:
    def test_has_the_figures_of_every_attempt(self) -> None:
        stage = perform(
            [2.0, head(503, retry_after="10"), 1.0, END],
            [4.0, OK, 5.0, ROLE, 60.0, lost()],
            [8.0, OK, 9.0, ROLE, TOKEN, 7.0, *ENDING],
        )
        figures = [
            (attempt.number, attempt.after, attempt.headers_after, attempt.output_after, attempt.elapsed)
            for attempt in stage.record.attempts
        ]
        assert figures == [(1, 0, 2, None, 3), (2, 13, 4, None, 69), (3, 82, 8, 17, 24)]
        assert (stage.record.elapsed, stage.record.first_output) == (106, 99)
        assert stage.record.elapsed == stage.ended
        assert [(told.delay, told.action) for told in stage.told] == [(10, "retry"), (0, "replay")]

    def test_dates_its_cuts(self) -> None:
        stage = perform([OK, 60.0, lost()], [OK, *ANSWER], heartbeat=0.0)
        [cut] = stage.record.cuts
        assert (cut.at, cut.silent) == (stage.record.started + 60, 60)

    def test_counts_what_was_sent(self) -> None:
        stage = perform([OK, 40.0, *ANSWER])
        assert (stage.record.bytes_out, stage.record.heartbeats) == (len(stage.client.body), 2)
        assert perform([lost()], policy=ONCE).record.bytes_out > 0

    def test_says_whose_turn_it_is(self) -> None:
        record = perform([JSON, WHOLE, END], asked=GEMINI, streaming=False).record
        assert (record.id, record.upstream, record.dialect) == ("cafe0001", "lab", "gemini")
        assert not record.streaming

    def test_of_a_turn_that_runs(self) -> None:
        script = [2.0, OK, 8.0, ROLE, TOKEN, 90.0]
        before, prelude, output = looked_at(script, times=[1, 5, 12])
        facts = [(record.elapsed, record.outcome, record.first_output) for record in (before, prelude, output)]
        assert facts == [(1, None, None), (5, None, None), (12, None, 10)]
        phases = [(record.attempts[-1].phase, record.attempts[-1].failure) for record in (before, prelude, output)]
        assert phases == [(Phase.HEADERS, None), (Phase.PRELUDE, None), (Phase.OUTPUT, None)]
        running = output.attempts[-1]
        assert (running.headers_after, running.output_after, running.elapsed, running.silent) == (2, 10, 12, 2)
        assert [record.attempts[-1].silent for record in (before, prelude)] == [1, 3]

    def test_of_a_turn_that_runs_again(self) -> None:
        [record] = looked_at([OK, 3.0, lost()], [OK], times=[5])
        assert [(attempt.failure, attempt.after, attempt.elapsed) for attempt in record.attempts] == [
            ("reset", 0, 3),
            (None, 3, 2),
        ]

    def test_of_a_turn_that_waits(self) -> None:
        [record] = looked_at([head(503, retry_after="50"), END], times=[5])
        lost_one, waiting = record.attempts
        assert (lost_one.failure, lost_one.elapsed) == ("busy", 0)
        assert (waiting.number, waiting.phase, waiting.after, waiting.elapsed) == (2, Phase.CONNECT, 50, 0)

    def test_never_counts_an_attempt_twice(self) -> None:
        """While a slow client takes the end of the answer, or the error, the attempt is over already."""

        def stops_reading(stage: Stage) -> None:
            stage.client.stop_reading()

        def looks(stage: Stage) -> None:
            seen.append(len(stage.turn.record().attempts))

        seen: list[int] = []
        for ending in (END, lost()):
            perform([OK, ROLE, TOKEN, STOP, 1.0, ending], others=[at(0.5, stops_reading), at(5, looks), at(9, leaves)])
            perform([OK, ROLE, TOKEN, 1.0, ending], others=[at(0.5, stops_reading), at(5, looks), at(9, leaves)])
        assert seen == [1, 1, 1, 1]


class TestQuietSince:
    @pytest.mark.parametrize(("asked", "streaming"), [(GEMINI, True), (CHAT, False)], ids=["gemini", "one piece"])
    def test_is_nothing_where_nothing_may_be_said(self, asked: Asked, streaming: bool) -> None:
        async def main() -> None:
            stage = Stage([[JSON]], asked=asked, streaming=streaming)
            stage.set_up()
            assert stage.turn.quiet_since(early=True) is None

        in_virtual_time(main)

    def test_is_nothing_once_it_is_over(self) -> None:
        stage = perform([OK, *ANSWER])
        assert stage.turn.quiet_since(early=True) is None

    def test_is_nothing_before_the_headers_unless_that_is_early_enough(self) -> None:
        async def main() -> None:
            stage = Stage([[5.0, OK]])
            stage.set_up()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stage.turn.run)
                await trio.sleep(2)
                assert stage.turn.quiet_since(early=False) is None
                assert stage.turn.quiet_since(early=True) == 0
                await trio.sleep(4)
                assert stage.turn.quiet_since(early=False) == 5
                stage.client.leave()

        in_virtual_time(main)
