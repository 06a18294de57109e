"""The failure table of the design on real sockets: every way to lose a connection, at every point, by every face."""

from __future__ import annotations

import dataclasses

import pytest

from conformance.expectations import LOST, has_ended, is_cut, is_replayed, is_retried, is_whole
from conformance.faces import FACES, POLICY, Face
from conformance.fixtures import Setting
from pairwise import pairwise
from unbroken.core.failures import Phase
from unbroken.lab import Fault, ScriptedAnswer

IDLE = 0.2
"""Seconds: what the idle limit is where a stall is awaited."""

POINTS = (
    "before_headers", "after_headers", "after_comments", "after_role",
    "after_reasoning", "after_token", "after_finish", "after_usage", "after_done",
)  # fmt: skip

# replay: two requests, one clean answer. retry: the same, and provably not billed. cut: StreamCut, one request.
# end: a whole answer, one request.
TABLE = """
                             headers:  before  after   comments  role    reasoning  token  finish  usage  done
    http1 http1-tls http2    rst       replay  replay  replay    replay  cut        cut    end     end    end
    http1 http1-tls http2    fin       replay  replay  replay    replay  cut        cut    end     end    end
    http1-tls                notified  replay  replay  replay    replay  cut        cut    end     end    end
    http1 http1-tls http2    clean_end -       replay  replay    replay  cut        cut    end     end    end
    http1 http2              stall     replay  -       replay    replay  -          cut    end     -      -
    http1 http1-tls http2    short     -       replay  replay    replay  cut        cut    end     end    end
    http1                    truncated -       replay  replay    replay  cut        cut    end     end    end
    http1                    bad_chunk -       replay  replay    replay  cut        cut    end     end    end
    http2                    rst_stream replay replay  replay    replay  cut        cut    end     end    end
    http2                    cancel    replay  replay  replay    replay  cut        cut    end     end    end
    http2                    goaway    replay  replay  replay    replay  cut        cut    end     end    end
    http2                    excluded  retry   retry   retry     retry   cut        cut    end     end    end
    http2                    refused   retry   -       -         -       -          -      -       -      -
"""

FAULTS = {
    # Where a reset overtakes what was sent before it, the client never gets to see that.
    "rst": Fault("rst", "before_headers", seconds=0.01),
    "fin": Fault("fin", "before_headers"),
    "notified": Fault("fin", "before_headers", close_notify=True),
    "clean_end": Fault("clean_end", "after_headers"),
    "stall": Fault("stall", "before_headers"),
    "short": Fault("short_length", "after_headers"),
    "truncated": Fault("truncated_chunk", "after_headers"),
    "bad_chunk": Fault("bad_chunk", "after_headers"),
    "rst_stream": Fault("rst_stream", "before_headers"),
    "cancel": Fault("rst_stream", "before_headers", code=0x8),
    "goaway": Fault("goaway", "before_headers", then="close"),
    "excluded": Fault("goaway", "before_headers", last_stream_id=0, then="close"),
    "refused": Fault("refused_stream", "before_headers"),
}

CODES = {
    "clean_end": {"unfinished"},
    "stall": {"idle_timeout"},
    "bad_chunk": {"broken_framing"},
    "rst_stream": {"stream_reset"},
    "cancel": {"stream_reset"},
    "excluded": {"not_processed"},
    "refused": {"not_processed"},
}
"""The failures that can be told apart; a reset, a close and a truncated body often cannot."""


def rows() -> list[tuple[str, str, str, str]]:
    """Transport, fault, point and outcome."""
    table = []
    for line in TABLE.strip().splitlines()[1:]:
        cells = line.split()
        transports, name, outcomes = cells[:-10], cells[-10], cells[-9:]
        for transport in transports:
            table += [
                (transport, name, point, outcome)
                for point, outcome in zip(POINTS, outcomes, strict=True)
                if outcome != "-"
            ]
    return table


IN_FULL = [face for face in FACES if face.name in ("driver", "driver-asyncio")]
OTHERS = [face for face in FACES if face not in IN_FULL]
CASES = [(face, *row) for face in IN_FULL for row in rows()] + pairwise(
    (face, *row) for face in OTHERS for row in rows()
)
"""In full for the two drivers. The clients are built on them, and under trio the same code runs."""


@pytest.mark.parametrize(("face", "transport", "name", "point", "expected"), CASES, ids=str)
def test_a_cut(face: Face, settings, transport: str, name: str, point: str, expected: str) -> None:
    setting: Setting = settings(transport)
    upstream = setting.serve(dataclasses.replace(FAULTS[name], at=point))
    policy = dataclasses.replace(POLICY, idle_timeout=IDLE) if name == "stall" else POLICY
    outcome = face.run(setting.ask(upstream, policy=policy))
    codes = CODES.get(name, LOST)
    match expected:
        case "replay":
            is_replayed(outcome, upstream, codes=codes)
        case "retry":
            is_retried(outcome, upstream, codes=codes)
        case "cut":
            is_cut(outcome, upstream, codes=codes, text="" if point == "after_reasoning" else "Hello")
        case "end":
            has_ended(outcome, upstream)


def test_nothing_goes_wrong(face: Face, setting: Setting) -> None:
    upstream = setting.serve()
    outcome = face.run(setting.ask(upstream))
    has_ended(outcome, upstream)
    (attempt,) = outcome.report.attempts
    assert (attempt.failure, attempt.phase, attempt.status) == (None, Phase.COMPLETE, 200)
    assert attempt.http_version == setting.http_version


@pytest.mark.parametrize("point", ["before_headers", "after_headers", "after_role", "after_token"])
def test_a_graceful_goaway_lets_the_stream_end(face: Face, settings, point: str) -> None:
    setting: Setting = settings("http2")
    upstream = setting.serve(Fault("goaway", point))
    has_ended(face.run(setting.ask(upstream)), upstream)


@pytest.mark.parametrize("framing", ["close", "length", "chunked"])
def test_every_framing_is_read_to_its_end(face: Face, settings, framing: str) -> None:
    setting: Setting = settings("http1")
    upstream = setting.serve(answer=ScriptedAnswer(framing=framing))
    is_whole(face.run(setting.ask(upstream)), upstream, requests=1)


class TestTheSeed:
    """What was asked for when the project began, in its own words."""

    def test_a_reset_with_zero_tokens_then_a_full_stream_is_one_clean_stream(
        self, face: Face, setting: Setting
    ) -> None:
        upstream = setting.serve(Fault("rst", "after_headers", seconds=0.01))
        is_replayed(face.run(setting.ask(upstream)), upstream)

    def test_a_reset_after_a_token_is_an_error_and_one_request(self, face: Face, setting: Setting) -> None:
        upstream = setting.serve(Fault("rst", "after_token", seconds=0.01))
        is_cut(face.run(setting.ask(upstream)), upstream)

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("malformed", "after_role"),
            Fault("status", "before_headers", status=400),
            Fault("error_event", "after_role", error={"type": "invalid_request_error"}),
        ],
        ids=lambda fault: fault.kind,
    )
    def test_only_a_drop_of_the_connection_is_replayed_as_one(self, face: Face, setting: Setting, fault: Fault) -> None:
        upstream = setting.serve(fault)
        outcome = face.run(setting.ask(upstream))
        assert len(upstream.requests) == 1
        assert outcome.report.lost == 0
        assert outcome.told == []
