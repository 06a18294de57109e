"""What the rule demands of a turn that was played by a schedule. Nothing here uses what it puts to the test."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from proof.schedules import ANSWERS, LASTING, WIRES, Schedule, ScheduledServer, events_of
from properties.playing import Played
from unbroken.core.failures import Failure
from unbroken.errors import StreamCut
from unbroken.lab.speech import OPENAI

COMMENTS = (b":", b"event: ping\n")
BUSY = (408, 409, 425, 429, 500, 502, 503, 529)
PATIENCE = 900.0
MAX_EVENT = 900
"""Bytes: no event of an answer is longer."""


def judge(schedule: Schedule, server: ScheduledServer, played: Played) -> str:
    """Return how a turn broke the rule, ``""`` if it did not."""
    return next(filter(None, (rule(schedule, server, played) for rule in RULES)), "")


def _budget(schedule: Schedule, server: ScheduledServer, played: Played) -> str:
    """No more requests than were allowed."""
    report, asked = played.report, [request for request in played.requests if request.method == "POST"]
    if report.replays > schedule.replays:
        return f"{report.replays} replays of {schedule.replays}"
    if len(asked) > (1 + schedule.replays) * (1 + schedule.retries):
        return f"{len(asked)} requests"
    most = schedule.resumes * (1 + schedule.retries) + schedule.retries
    if schedule.wire == "interactions":
        most *= 3  # each of two events without an id that may follow one is progress too
    if (times := _most_resumes(played)) > most:
        return f"taken up {times} times at one place"
    if [attempt.number for attempt in report.attempts] != list(range(1, len(report.attempts) + 1)):
        return "attempts are not numbered in order"
    if not played.left and len(report.attempts) != len(played.requests):
        return f"{len(report.attempts)} attempts of {len(played.requests)} requests in the report"
    if not all(attempt.failure for attempt in report.attempts[:-1]):
        return "another attempt after one that did not fail"
    return ""


def _patience(schedule: Schedule, server: ScheduledServer, played: Played) -> str:
    """No attempt starts later than was allowed, counted from the start or the loss of the last that made progress."""
    since = 0.0
    for attempt, start in zip(played.report.attempts, played.starts, strict=False):
        if start > since + schedule.give_up_after + 1e-6:
            return f"attempt {attempt.number} starts {start - since:g} s later"
        if attempt.output_after is not None or attempt.status == 200:
            since = attempt.after + attempt.elapsed
    for number, (attempt, start) in enumerate(zip(played.report.attempts, played.starts[1:], strict=False), 1):
        wait = schedule.act(number).retry_after
        if attempt.status in BUSY and wait is not None and start < attempt.after + attempt.elapsed + wait:
            return f"attempt {number + 1} starts before the {wait} s have passed that the server asked for"
    return ""


def _perseverance(schedule: Schedule, server: ScheduledServer, played: Played) -> str:
    """What may be replayed is, as long as the budget allows it: not a byte of it was handed on."""
    error = played.error
    if type(error) is not StreamCut or played.head is not None or schedule.give_up_after < PATIENCE:
        return ""
    last = played.report.attempts[-1]
    if last.after + last.elapsed > PATIENCE - 20 or "asks to wait" in str(error):
        return ""
    is_resumed = any(attempt.resumes is not None for attempt in played.report.attempts)
    acts = schedule.choice == "resume"  # whose response may go on: another is not asked for
    if played.report.replays < schedule.replays and not (is_resumed or acts):
        return f"given up after {played.report.replays} of {schedule.replays} replays"
    return ""


def _memory(schedule: Schedule, server: ScheduledServer, played: Played) -> str:
    """No more of a stream is held than was allowed, and the piece that came last."""
    cap = schedule.max_prelude if schedule.hold == "prelude" else max(schedule.max_hold, schedule.max_prelude)
    piece = max(max(schedule.act(number).sizes) for number in range(1, len(played.requests) + 2))
    if played.withheld > cap + piece + MAX_EVENT:
        return f"{played.withheld} bytes were held"
    return ""


def _nothing_after_output(schedule: Schedule, server: ScheduledServer, played: Played) -> str:
    """After output nothing is sent that the caller has not chosen."""
    for request, output in zip(played.requests, played.after_output, strict=True):
        if not output or schedule.choice in ("continue", "restart"):
            continue
        if request.method != "GET":
            return f"asked again after {output} bytes of output"
    if schedule.choice == "restart" and any(request != played.request for request in played.requests):
        return "another request than the caller's"
    return ""


def _bytes(schedule: Schedule, server: ScheduledServer, played: Played) -> str:
    """What the caller has is one attempt's, from its first byte on, as it came."""
    if not played.received or _is_spliced(schedule, played):
        return ""
    if schedule.choice in ("resume", "background"):
        return _resumed_bytes(schedule, server, played)
    came = bytes(played.deliveries[played.spoke - 1])
    if not came.startswith(played.received):
        return "its bytes are not those of the attempt that spoke"
    if played.error is None and not played.left and (played.spoke, played.received) != (len(played.requests), came):
        return "it ended, and not all of the last attempt was handed on"
    return ""


def _resumed_bytes(schedule: Schedule, server: ScheduledServer, played: Played) -> str:
    """Without keepalives, the bytes are those of the uncut stream, and perhaps an error behind them."""
    if played.head is None or not _is_answer(schedule, played):
        return ""
    told = _without_comments(played.received)
    uncut = _uncut(server)
    if uncut.startswith(told):
        return ""
    came = _without_comments(bytes(played.deliveries[-1]))
    tail = next((event for event in _trouble(schedule) if told.endswith(event)), b"")
    if tail and tail in came and uncut.startswith(told[: -len(tail)]):
        return ""
    if WIRES[schedule.wire].server.malformed in told:
        return ""
    behind = told.removeprefix(uncut)
    if told != behind and b"\n\n" not in behind and came.endswith(behind):
        return ""  # half of an event that the server sent behind its terminator
    return "its bytes are not those of the uncut stream"


def _end(schedule: Schedule, server: ScheduledServer, played: Played) -> str:
    """A part of an answer is never passed off as the whole of one."""
    if played.left:
        return ""
    if played.error is not None:
        held = played.error.held
        if held and not _has_come(schedule, server, played, held):
            return "what it says that was held is not what came"
        timeout = played.error.report.attempts[-1].failure == Failure.CALLER_TIMEOUT.code
        if played.received and type(played.error) is not StreamCut and not timeout:
            return f"{type(played.error).__name__} after output"
        return ""
    if played.head is None:
        return "it ended without a response"
    if not _is_answer(schedule, played):
        return ""
    said = server.said[-1]
    if said is None or len(played.deliveries[-1]) < said - len(b"\n\n"):  # the last event counts without a blank line
        return f"called whole after {len(played.deliveries[-1])} of {said} bytes"
    return ""


def _text(schedule: Schedule, server: ScheduledServer, played: Played) -> str:
    """The text of an answer that was continued is the model's, or a beginning of it and an error."""
    if not _is_spliced(schedule, played):
        return ""
    told, failed = text_of(schedule.wire, played.received)
    text = "".join(ANSWERS[schedule.answer].tokens)
    if not text.startswith(told):
        return f"{told!r} is not the model's text"
    calls_a_tool = schedule.manner == "calls_a_tool"
    if played.error is None and not (played.left or failed or calls_a_tool) and told != text:
        return f"{told!r} called whole"
    return ""


def _most_resumes(played: Played) -> int:
    """How often one response was taken up at one and the same place, at most."""
    taken: Counter[tuple[int, str]] = Counter()
    generation = 0
    for attempt in played.report.attempts:
        generation += attempt.resumes is None
        if attempt.resumes is not None:
            taken[generation, attempt.resumes] += 1
    return max(taken.values(), default=0)


def _has_come(schedule: Schedule, server: ScheduledServer, played: Played, held: bytes) -> bool:
    """Whether what an error says that was held is the beginning of an attempt, or of a stream that was taken up."""
    if any(request.method == "GET" for request in played.requests):
        return _uncut(server).startswith(_without_comments(held))
    return any(bytes(came).startswith(held) for came in played.deliveries)


def _uncut(server: ScheduledServer) -> bytes:
    return b"".join(events_of(server.uncut(server.generations[-1])))


def _is_spliced(schedule: Schedule, played: Played) -> bool:
    """Whether the caller may have something of an attempt that continues another."""
    return schedule.choice == "continue" and any(played.after_output)


RULES = (_budget, _patience, _perseverance, _memory, _nothing_after_output, _bytes, _end, _text)


def _is_answer(schedule: Schedule, played: Played) -> bool:
    """Whether what the caller got is a stream of events, and no page, error or empty response."""
    assert played.head is not None
    return played.head.status == 200 and played.head.content_type == "text/event-stream"


def _trouble(schedule: Schedule) -> list[bytes]:
    """The errors that may stand in a stream; the lab says those of a stream that is taken up in OpenAI's words."""
    speeches = (WIRES[schedule.wire].server, OPENAI)
    return [speech.error_event(members) for speech in speeches for members in ({}, LASTING[schedule.wire])]


def _without_comments(data: bytes) -> bytes:
    blocks = data.split(b"\n\n")
    return b"\n\n".join(block for block in blocks if not block.startswith(COMMENTS))


def text_of(wire: str, data: bytes) -> tuple[str, bool]:
    """Return the text in a stream, read by nothing but JSON, and whether an error stands in it."""
    text, failed = "", False
    for line in data.decode(errors="replace").split("\n"):
        if line.startswith("data: {"):
            try:
                event = json.loads(line[6:])
            except ValueError:
                failed = True
                continue
            failed = failed or bool(event.get("error")) or event.get("type") == "error"
            text += _text_in(wire, event)
    return text, failed


def _text_in(wire: str, event: dict[str, Any]) -> str:
    if wire == "messages":
        delta = event.get("delta", {})
        return str(delta.get("text", "")) if delta.get("type") == "text_delta" else ""
    choices = event.get("choices") or [{}]
    if wire == "legacy":
        return str(choices[0].get("text") or "")
    return str(choices[0].get("delta", {}).get("content") or "")
