"""The verdict on a client: what it made of one scenario, from its output, its exit code and its requests.

Pure: whoever runs the client (a command, a test) hands in what was seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from unbroken.lab.fault import CONNECTION_POINTS, Fault, Point, retry_after
from unbroken.lab.numbered import COUNT, NUMBERS, numbers_in
from unbroken.lab.record import RecordedRequest
from unbroken.lab.routes import dialect_of
from unbroken.lab.scenario import Scenario

Outcome = Literal[
    "failed silently",
    "doubled output",
    "hammered",
    "hung",
    "paid twice",
    "failed loudly",
    "survived",
    "not judged",
]
"""What a client made of a scenario, the worst first; `ClientVerdict` describes each."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
FINE: tuple[Outcome, ...] = ("failed loudly", "survived", "not judged")
"""The outcomes with which nothing is wrong."""

MOST_REQUESTS = 12
"""How often a client may ask for one turn: the most persistent ones that people use retry ten times."""

_PERMANENT = frozenset(range(400, 500)) - {408, 409, 425, 429}
"""Statuses that say the same however often one asks (RFC 9110, section 15.5; RFC 8470; RFC 6585)."""

_EARLY = 0.1
"""By which part of its time a request may come too early after ``Retry-After``: clocks and rounding differ."""

_ENDINGS = ("stop", "length", "tool_calls", "content_filter")
"""Finish reasons that end an answer; others report a failure."""

_BEHIND_THE_FINISH: tuple[Point, ...] = ("after_finish", "after_usage", "after_done")

_LIKE_THE_TURN = 0.9
"""A request is for the turn if it has this part of the longest body: titles and the like are far shorter."""


@dataclass(frozen=True)
class ClientRun:
    """What was seen of a client.

    Attributes:
        output: what it said to its user; numbers of the answer's words are looked for here.
        exit_code: 0 for success; None if it was still running when its time was over, and was ended.
        seconds: how long it ran.
        requests: those that the scenario's server recorded.
        complaints: what else it said, such as stderr.
    """

    output: str
    exit_code: int | None
    seconds: float
    requests: Sequence[RecordedRequest]
    complaints: str = ""


@dataclass(frozen=True)
class Baseline:
    """What a client does when nothing goes wrong.

    Attributes:
        numbers: those of the answer's words in its output: a client may show the answer twice by intention.
        before: how many generation calls it makes before that for the turn.
    """

    numbers: tuple[int, ...] = NUMBERS
    before: int = 0


@dataclass(frozen=True)
class ClientVerdict:
    """What a client made of one scenario.

    * ``survived``: the whole answer, once, and success.
    * ``failed loudly``: an error that says so: an exit code, or what the scenario accepts as telling.
    * ``failed silently``: success, without the whole answer.
    * ``doubled output``: a part of the answer more often than when nothing goes wrong.
    * ``hung``: still running when its time was over.
    * ``hammered``: it asked again after an error that asking again does not mend, sooner than ``Retry-After`` said, or
      more than `MOST_REQUESTS` times.
    * ``paid twice``: it asked again although a whole answer had been delivered, or asked again after output and made
      no use of the whole answer that it was given.
    * ``not judged``: the scenario did not happen to it, or it does as it was told.

    Attributes:
        scenario: the name of the scenario.
        outcome: the worst of what was found.
        found: everything that was found, the worst first.
        reasons: a sentence for each.
        requests: how many generation calls it made.
    """

    scenario: str
    outcome: Outcome
    found: tuple[Outcome, ...]
    reasons: tuple[str, ...]
    requests: int

    @property
    def is_fine(self) -> bool:
        """Whether it is not worse than a loud failure."""
        return self.outcome in FINE


_Found = tuple[Outcome, str]


def baseline(run: ClientRun) -> Baseline:
    """Return what a client does when nothing goes wrong, from a run of the scenario without faults.

    An answer that is shown more than once counts as intended only if it was asked for once.
    """
    calls = generation_calls(run.requests)
    turns = _turns(calls)
    numbers = numbers_in(run.output)
    copies = set(Counter(numbers).values())
    is_intended = len(turns) == 1 and set(numbers) == set(NUMBERS) and len(copies) == 1
    return Baseline(numbers if is_intended else NUMBERS, calls.index(turns[0]) if turns else 0)


def judge(scenario: Scenario, run: ClientRun, normal: Baseline | None = None, *, told: str = "") -> ClientVerdict:
    """Judge what a client made of a scenario.

    Args:
        scenario: what happened to it.
        run: what was seen.
        normal: what it does when nothing goes wrong; None: one request, the answer once.
        told: a further pattern like that of the scenario, for a client that tells of failures in words alone.

    Raises:
        ValueError: the scenario's answer shows nothing; see :func:`check_answer`.
    """
    check_answer(scenario)
    normal = normal or Baseline()
    calls = generation_calls(run.requests)
    turns = _turns(calls[normal.before :])
    if excuse := _excuse(scenario, run, turns):
        return ClientVerdict(scenario.name, "not judged", ("not judged",), (excuse,), len(calls))
    found = [_ending(run, normal, (scenario.told, told)), *_doubled(run, normal), *_hammered(scenario, turns)]
    found += _paid_twice(scenario, turns, is_whole=found[0][0] == "survived")
    outcomes = tuple(outcome for outcome in OUTCOMES if any(outcome == one for one, _ in found))
    worst = tuple(outcome for outcome in outcomes if outcome not in FINE) or outcomes
    reasons = tuple(reason for outcome in worst for one, reason in found if one == outcome)
    return ClientVerdict(scenario.name, worst[0], worst, reasons, len(calls))


def check_answer(scenario: Scenario) -> None:
    """Refuse a scenario whose answer does not show what of it has arrived.

    Raises:
        ValueError: the answer is another than the lab's own, or a part of it that says that it is whole.
    """
    numbers = numbers_in("".join(scenario.answer.tokens))
    if not numbers or (scenario.answer.finish_reason == "stop" and numbers != NUMBERS):
        raise ValueError("only the lab's own answer shows what of it arrived: leave the text out of the scenario")


def generation_calls(requests: Sequence[RecordedRequest]) -> list[RecordedRequest]:
    """Return the requests that are generation calls of a dialect, in order."""
    return [request for request in requests if dialect_of(request)]


def _turns(calls: Sequence[RecordedRequest]) -> list[RecordedRequest]:
    longest = max((len(call.body) for call in calls), default=0)
    return [call for call in calls if len(call.body) >= _LIKE_THE_TURN * longest]


def _excuse(scenario: Scenario, run: ClientRun, turns: Sequence[RecordedRequest]) -> str:
    """Return why a client is not judged; ``""`` if it is."""
    met = any(fault and fault.at in CONNECTION_POINTS for fault in scenario.script)
    if not turns and not met and run.exit_code != 0:
        return "no request came" + (": it may not trust the certificate" if scenario.tls else "")
    for turn in turns:
        if turn.fault and (needed := turn.fault.needs(turn.http_version)):
            return f"it does not speak {needed}"
    wait = retry_after(turns[-1].fault) if turns else 0.0
    if run.exit_code is None and wait > run.seconds and not any(_hammered(scenario, turns)):
        return f"it waits, as the server asked: Retry-After is {wait:g} s"
    return ""


def _ending(run: ClientRun, normal: Baseline, told: Iterable[str]) -> _Found:
    """Judge how the client ended, and whether it has said so."""
    numbers = numbers_in(run.output)
    shown = _described(numbers)
    if run.exit_code is None:
        return "hung", f"still running after {run.seconds:.0f} s, with {shown}"
    if run.exit_code:
        return "failed loudly", f"exit code {run.exit_code}, with {shown}"
    if numbers == normal.numbers or set(numbers) == set(NUMBERS):  # doubled, if it is more than that
        return "survived", "exit code 0, with the whole answer"
    if any(pattern and re.search(pattern, run.output + run.complaints) for pattern in told):
        return "failed loudly", f"exit code 0, with {shown}, and it tells of that"
    return "failed silently", f"exit code 0, with {shown}"


def _described(numbers: Sequence[int]) -> str:
    if not numbers:
        return "no word of the answer"
    different = len(set(numbers))
    return "the whole answer" if different == COUNT else f"{different} of the answer's {COUNT} words"


def _doubled(run: ClientRun, normal: Baseline) -> Iterator[_Found]:
    usual = Counter(normal.numbers)
    often = [number for number, count in Counter(numbers_in(run.output)).items() if count > usual[number]]
    if often:
        yield "doubled output", f"{len(often)} of the answer's {COUNT} words more often than once"


def _hammered(scenario: Scenario, turns: Sequence[RecordedRequest]) -> Iterator[_Found]:
    """Find requests that should not have been sent, or not yet; one of each kind is told."""
    if len(turns) > MOST_REQUESTS:
        yield "hammered", f"asked {len(turns)} times for one turn"
    for earlier, _ in pairwise(turns):
        if earlier.fault and not _is_retryable(scenario, earlier.fault):
            yield "hammered", f"asked again after {_called(earlier.fault)}"
            break
    for earlier, later in pairwise(turns):
        wait = retry_after(earlier.fault)
        waited = later.received_at - (earlier.head_sent_at or earlier.received_at)
        if waited < wait * (1 - _EARLY):
            yield "hammered", f"asked again after {waited:.1f} s, where Retry-After was {wait:g} s"
            break


def _is_retryable(scenario: Scenario, fault: Fault) -> bool:
    if scenario.retryable is not None:
        return scenario.retryable
    return fault.kind != "status" or fault.status not in _PERMANENT


def _called(fault: Fault) -> str:
    return f"HTTP {fault.status}" if fault.kind == "status" else fault.words


def _paid_twice(scenario: Scenario, turns: Sequence[RecordedRequest], *, is_whole: bool) -> Iterator[_Found]:
    """Find answers that were paid for without need; `is_whole` is whether the user has the whole answer."""
    for earlier, _ in pairwise(turns):
        if _was_whole(scenario, earlier):
            yield "paid twice", "asked again although a whole answer had been delivered"
            return
    spoke = [turn for turn in turns[:-1] if numbers_in(turn.sent.decode(errors="replace"))]
    if spoke and not is_whole and _was_whole(scenario, turns[-1]):
        yield "paid twice", "asked again after output, and made no use of the whole answer that it was given"


def _was_whole(scenario: Scenario, request: RecordedRequest) -> bool:
    """Return whether the server had sent all of an answer, and how it ended.

    What breaks behind the finish leaves a stream whole, but not a body of JSON, which only its framing ends.
    """
    fault = request.fault
    if scenario.answer.finish_reason not in _ENDINGS or not numbers_in(request.sent.decode(errors="replace")):
        return False
    if fault is None or fault.kind == "pause" or (fault.kind == "goaway" and fault.then == "go_on"):
        return request.done
    return fault.at in _BEHIND_THE_FINISH and not request.sent.startswith(b"{")
