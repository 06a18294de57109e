"""The failure table of the design's section 2, written down by hand and compared cell by cell."""

from __future__ import annotations

import pytest

from unbroken.core.failures import TABLE, Failure, Phase, Row, Verdict, verdict

RETRY, BRIEFLY, REPLAY, BACKOFF = Verdict.RETRY, Verdict.RETRY_BRIEFLY, Verdict.REPLAY, Verdict.REPLAY_WITH_BACKOFF
CUT, ERROR, ON, END, NEVER = Verdict.CUT, Verdict.ERROR, Verdict.HAND_ON, Verdict.END, Verdict.NEVER
PHASES = (Phase.CONNECT, Phase.HEADERS, Phase.PRELUDE, Phase.OUTPUT, Phase.SETTLED)

DESIGN = {
    #                      before   headers  prelude  output  settled
    Row.LOST:            ( RETRY,   REPLAY,  REPLAY,  CUT,    END   ),
    Row.UNREACHABLE:     ( BRIEFLY, NEVER,   NEVER,   NEVER,  NEVER ),
    Row.MISCONFIGURED:   ( ERROR,   NEVER,   NEVER,   NEVER,  NEVER ),
    Row.BUSY:            ( NEVER,   RETRY,   NEVER,   NEVER,  NEVER ),
    Row.GATEWAY_GAVE_UP: ( NEVER,   REPLAY,  NEVER,   NEVER,  NEVER ),
    Row.REFUSED:         ( NEVER,   ON,      NEVER,   NEVER,  NEVER ),
    Row.TRANSIENT_ERROR: ( NEVER,   NEVER,   BACKOFF, ON,     NEVER ),
    Row.PERMANENT_ERROR: ( NEVER,   NEVER,   ON,      ON,     NEVER ),
    Row.MALFORMED:       ( NEVER,   NEVER,   ERROR,   ON,     NEVER ),
    Row.OTHER_CONTENT:   ( NEVER,   ON,      NEVER,   NEVER,  NEVER ),
    Row.NO_OUTPUT:       ( NEVER,   ERROR,   ERROR,   NEVER,  NEVER ),
    Row.CALLER_TIMEOUT:  ( ERROR,   ERROR,   ERROR,   ERROR,  END   ),
    Row.CANCELLED:       ( ERROR,   ERROR,   ERROR,   ERROR,  ERROR ),
    # "The caller's own timeouts keep their own meaning: when one expires it is raised, never replayed."
    Row.CALLER_TIMEOUT:  ( ERROR,   ERROR,   ERROR,   ERROR,  END   ),
}  # fmt: skip

BEYOND_THE_DESIGN = {
    # A request that a server names as not processed (REFUSED_STREAM, a GOAWAY that leaves it out) may go again at once,
    # even after headers; once the attempt has spoken it is a loss like any other.
    **dict(zip([(Row.UNPROCESSED, phase) for phase in PHASES], (RETRY, RETRY, RETRY, CUT, END), strict=True)),
    # What cannot be sent is found out while it is being sent.
    (Row.MISCONFIGURED, Phase.HEADERS): ERROR,
    # After it has told how it ended, an attempt cannot fail any more: what still comes is handed on.
    (Row.TRANSIENT_ERROR, Phase.SETTLED): ON,
    (Row.PERMANENT_ERROR, Phase.SETTLED): ON,
    (Row.MALFORMED, Phase.SETTLED): ON,
    # One deadline serves three limits: the first output (from the start on), the body of an error, the settle silence.
    (Row.NO_OUTPUT, Phase.CONNECT): ERROR,
    (Row.NO_OUTPUT, Phase.SETTLED): END,
    # What cannot be read under the rule is never called whole, and another attempt would bring the same.
    (Row.UNREADABLE, Phase.PRELUDE): ERROR,
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("row", Row)
def test_every_cell_is_the_designs(row: Row, phase: Phase) -> None:
    designed = DESIGN[row][PHASES.index(phase)] if row in DESIGN else NEVER
    verdicts = {verdict(failure, phase) for failure in Failure if failure.row is row}
    assert verdicts == {BEYOND_THE_DESIGN.get((row, phase), designed)}


def test_what_goes_beyond_the_design_only_fills_cells_that_it_leaves_empty() -> None:
    for row, phase in BEYOND_THE_DESIGN:
        assert row not in DESIGN or DESIGN[row][PHASES.index(phase)] is NEVER


def test_the_table_has_every_cell_and_no_other() -> None:
    assert set(TABLE) == {(row, phase) for row in Row for phase in PHASES}


FAILURES_OF_THE_FIRST_ROWS = {
    Row.LOST: "reset closed truncated unfinished broken_framing stream_reset too_many_pings dead_path idle_timeout "
    "stalled stalled_output misfit tls_failed",
    Row.UNPROCESSED: "not_processed",
    Row.UNREACHABLE: "connection_refused connect_timeout not_connected no_route proxy_unreachable "
    "proxy_cannot_reach proxy_closed dns_temporary",
    Row.MISCONFIGURED: "no_such_host certificate tls_mismatch proxy_auth proxy_refused proxy_protocol captive_portal "
    "bad_request",
    Row.MALFORMED: "malformed event_too_large",
    Row.UNREADABLE: "unsupported_encoding",
    Row.NO_OUTPUT: "unproven_end deadline",
}


@pytest.mark.parametrize("row", Row)
def test_which_failures_are_treated_alike(row: Row) -> None:
    codes = {failure.code for failure in Failure if failure.row is row}
    assert codes == set(FAILURES_OF_THE_FIRST_ROWS.get(row, row.name.lower()).split())


@pytest.mark.parametrize("failure", Failure)
def test_after_the_end_nothing_can_be_lost(failure: Failure) -> None:
    assert verdict(failure, Phase.COMPLETE) is Verdict.END


def test_codes_are_stable_names() -> None:
    assert len({failure.code for failure in Failure}) == len(Failure)
    for failure in Failure:
        assert failure.phrase


@pytest.mark.parametrize("phase", [Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE])
@pytest.mark.parametrize("failure", Failure)
def test_the_rule_nothing_is_sent_again_once_an_attempt_has_spoken(failure: Failure, phase: Phase) -> None:
    assert verdict(failure, phase) not in (RETRY, BRIEFLY, REPLAY, BACKOFF)
