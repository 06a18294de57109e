"""An answer that begins again after cuts is one attempt's, or a beginning of one and an error: for any text and cut."""

from __future__ import annotations

import dataclasses

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from choices import WIRES, Wire
from properties.continuing import body_of, play
from properties.test_continuing import CHUNKS, CUTS, TOKENS, WORDS
from properties.test_rule import MAX_PRELUDE, Driver
from properties.world import MAX_EVENT, Script, scripts
from unbroken.core.actions import Action, EndTurn, Fail, GiveHead, Notify, Restart
from unbroken.core.dialect import Call, Generation
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.events import Restarted, Text, TypedEvent
from unbroken.core.failures import Failure, Phase
from unbroken.core.http import Head
from unbroken.core.policy import HOLDS, Hold, Policy
from unbroken.core.turn import Turn
from unbroken.errors import StreamCut
from unbroken.lab import Continuation, ScriptedAnswer

REASONING = st.just([]) | st.lists(WORDS, min_size=1, max_size=6)


@given(
    TOKENS, REASONING, CUTS, CHUNKS, st.sampled_from(list(WIRES.values())), st.sampled_from(HOLDS), st.integers(0, 4)
)
def test_the_text_is_that_of_one_attempt_or_a_beginning_of_it_and_an_error(
    tokens: list[str],
    reasoning: list[str],
    cuts: list[float | None],
    chunks: list[int],
    wire: Wire,
    hold: Hold,
    replays: int,
) -> None:
    answer, text, thought = ScriptedAnswer(text=tokens, reasoning=reasoning), "".join(tokens), "".join(reasoning)
    played = play(
        answer,
        Continuation(),
        cuts,
        style=None,
        chunks=chunks,
        dialect=(wire.server, wire.path, wire.body),
        after_output="restart",
        hold=hold,
        replays=replays,
    )
    said, report = played.reader.answer, played.report
    assert len(played.bodies) == len(report.attempts) <= 1 + replays
    assert len({str(body) for body in played.bodies}) == 1
    last = body_of(wire.server.pieces(answer, len(played.bodies)))
    if played.error is None:
        assert (said.text, said.reasoning) == (text, thought)
        assert last.startswith(played.received)
    else:
        assert type(played.error) is StreamCut
        assert text.startswith(said.text)
        assert thought.startswith(said.reasoning)
    told = [event for event in played.typed_events if isinstance(event, Restarted)]
    assert told == list(report.restarts)
    assert hold != "answer" or told == []
    attempts = _attempts(played.typed_events)
    assert [len(one) for one in attempts[:-1]] == [event.character for event in told]
    assert all(text.startswith(one) for one in attempts)
    assert attempts[-1] == said.text


def _attempts(events: list[TypedEvent]) -> list[str]:
    """The text of each attempt that the caller has seen something of."""
    texts = [""]
    for one in events:
        if isinstance(one, Restarted):
            texts.append("")
        elif isinstance(one, Text):
            texts[-1] += one.text
    return texts


class RestartDriver(Driver):
    """Drives a turn that may begin again, and holds each of its attempts to the rule.

    Attributes:
        is_due: whether the caller has output of a lost attempt, and nothing yet of another one.
    """

    def __init__(self, plan: list[Script], policy: Policy) -> None:
        super().__init__(plan, policy, streaming=True, choices=1, leaves_at=-1)
        self.is_due = False
        call = Call(OPENAI_CHAT, Generation(streaming=True))
        self.turn = Turn(call, policy, now=0.0, random=lambda: 0.5, wall_clock=lambda: self.now, may_restart=True)

    def obey(self, action: Action) -> None:
        if isinstance(action, Restart):
            assert self.is_due
            assert action.attempt == self.attempts
            self.is_due, self.handed_on = False, b""
            self.check_head(Head(self.exchange.script.status, ()))
            self.turn.restarted(Restarted(action.attempt, 0))
            return
        assert not (self.is_due and isinstance(action, GiveHead)), "the head comes once"
        super().obey(action)

    def check_told(self, told: Notify) -> None:
        if told.event.action == "restart":
            assert self.head is not None
            assert self.exchange.script.status < 300, "what is no answer is not asked for again"
            assert not (self.under_the_rule and self.heard.settled), "what has settled is over"
            self.head, self.is_due = None, True
            self.tried_since = told.event.lost.after + told.event.lost.elapsed
        super().check_told(told)

    def check_end(self, end: Fail | EndTurn) -> None:
        super().check_end(end)
        if self.is_due:
            assert isinstance(end, Fail), "half of an answer is no answer"
            assert isinstance(end.error, StreamCut)
            assert end.error.phase is Phase.OUTPUT


CUT_STREAMS = scripts().map(
    lambda script: dataclasses.replace(script, before=None, status=200, content_type="", loss=Failure.RESET)
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    plan=st.builds(
        lambda cut, more: [*cut, *more], st.lists(CUT_STREAMS, min_size=1, max_size=2), st.lists(scripts(), max_size=3)
    ),
    retries=st.integers(0, 2),
    replays=st.integers(1, 3),
    give_up_after=st.sampled_from([600.0, 600.0, 600.0, 40.0, 0.0]),
    hold=st.sampled_from(HOLDS),
)
def test_each_attempt_of_an_answer_that_begins_again_keeps_the_rule(
    plan: list[Script], retries: int, replays: int, give_up_after: float, hold: Hold
) -> None:
    policy = Policy(
        retries=retries,
        replays=replays,
        give_up_after=give_up_after,
        max_prelude=MAX_PRELUDE,
        max_event=MAX_EVENT,
        hold=hold,
        max_hold=100_000,
        first_output_timeout=300.0,
        after_output="restart",
    )
    driver = RestartDriver(plan, policy)
    end = driver.run()
    driver.check_end(end)
    event(f"{len(driver.turn.report.restarts)} restarts, {type(end).__name__}{', due' if driver.is_due else ''}")
