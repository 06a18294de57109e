"""The judge alone: what is made of an output, an exit code and the requests that a server recorded."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from dataclasses import replace

import pytest

from unbroken.lab import Fault, RecordedRequest, Scenario, ScriptedAnswer, parse_fault, run_scenario
from unbroken.lab.numbered import NUMBERS, TEXT
from unbroken.lab.verdict import MOST_REQUESTS, Baseline, ClientRun, ClientVerdict, baseline, judge

WORDS = TEXT.split()
HALF = " ".join(WORDS[:12])
CHAT, BODY = "/v1/chat/completions", b'{"stream": true}'


def request(
    fault: Fault | str | None = None, *, at: float = 0.0, sent: str = TEXT, body: bytes = BODY, target: str = CHAT
) -> RecordedRequest:
    """A generation call that was served at once."""
    found = parse_fault(fault) if isinstance(fault, str) else fault
    record = RecordedRequest(1, 1, "1.1", "POST", target, [], body, at, found, at, at)
    record.add_sent(sent.encode())
    return record


def judged(
    scenario: Scenario, output: str, code: int | None, requests: Sequence[RecordedRequest], **more: object
) -> ClientVerdict:
    return judge(scenario, ClientRun(output, code, 1.0, requests, str(more.pop("complaints", ""))), **more)


CUT = Scenario("cut", faults=["fin@after_characters:131"])
BUSY = Scenario("busy", faults=["status=503@before_headers"])
NOTHING = Scenario("nothing")
FIRST = request("fin@after_characters:131", sent=HALF)
REFUSED = request("status=503@before_headers", sent="")


@pytest.mark.parametrize(
    ("output", "code", "outcome"),
    [
        (TEXT, 0, "survived"),
        (f"thinking...\n{TEXT.replace(' ', chr(10))}\nbye", 0, "survived"),
        (HALF, 0, "failed silently"),
        ("", 0, "failed silently"),
        (" ".join(WORDS[:5] + WORDS[9:]), 0, "failed silently"),
        (HALF, 1, "failed loudly"),
        ("", 137, "failed loudly"),
        (f"{HALF}\n{TEXT}", 0, "doubled output"),
        (f"{HALF}\n{TEXT}", 1, "doubled output"),
        (f"{TEXT}\n{TEXT}", 0, "doubled output"),
        (f"{HALF} {HALF}", 0, "failed silently"),
        (HALF, None, "hung"),
        (TEXT, None, "hung"),
    ],
)
def test_the_output_and_the_exit_code_tell_how_it_went(output: str, code: int | None, outcome: str) -> None:
    assert judged(CUT, output, code, [FIRST]).outcome == outcome


def test_everything_that_was_found_is_told_with_a_reason() -> None:
    verdict = judged(CUT, f"{HALF} {HALF}", 0, [FIRST])
    assert verdict.found == ("failed silently", "doubled output")
    assert verdict.reasons == (
        "exit code 0, with 12 of the answer's 24 words",
        "12 of the answer's 24 words more often than once",
    )
    assert not verdict.is_fine


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_status_that_stays_the_same_is_not_to_be_asked_again(status: int) -> None:
    scenario = Scenario("refused", faults=[f"status={status}@before_headers"] * 9)
    refused = request(f"status={status}@before_headers", sent="")
    assert judged(scenario, "", 1, [refused]).outcome == "failed loudly"
    assert judged(scenario, "", 1, [refused, refused]).outcome == "hammered"
    assert judged(scenario, "", 1, [refused, refused]).reasons == (f"asked again after HTTP {status}",)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_a_status_that_may_change_may_be_asked_again(status: int) -> None:
    refused = request(f"status={status}@before_headers", sent="")
    assert judged(BUSY, TEXT, 0, [refused, request()]).outcome == "survived"


def test_a_scenario_may_say_whether_to_ask_again() -> None:
    final = Scenario("quota", faults=["status=429@before_headers"], retryable=False)
    refused = request("status=429@before_headers", sent="")
    assert judged(final, "", 1, [refused, refused]).outcome == "hammered"
    mild = Scenario("odd", faults=["status=404@before_headers"], retryable=True)
    assert judged(mild, TEXT, 0, [request("status=404@before_headers", sent=""), request()]).outcome == "survived"


@pytest.mark.parametrize(
    ("later", "outcome"), [(0.2, "hammered"), (1.7, "hammered"), (1.9, "survived"), (5.0, "survived")]
)
def test_retry_after_is_waited_for(later: float, outcome: str) -> None:
    limited = request(Fault("status", "before_headers", status=429, headers={"Retry-After": "2"}), sent="")
    assert judged(BUSY, TEXT, 0, [limited, request(at=later)]).outcome == outcome


def test_who_still_waits_as_it_was_told_is_not_judged() -> None:
    limited = request(Fault("status", "before_headers", status=429, headers={"retry-after": "3600"}), sent="")
    assert judged(BUSY, "", None, [limited]).outcome == "not judged"
    assert judged(BUSY, "", None, [limited, limited]).found == ("hammered", "hung")
    assert judged(BUSY, "", 1, [limited, limited]).outcome == "hammered"


def test_asking_without_end_is_hammering() -> None:
    assert judged(BUSY, "", 1, [REFUSED] * MOST_REQUESTS).outcome == "failed loudly"
    assert judged(BUSY, "", 1, [REFUSED] * (MOST_REQUESTS + 1)).outcome == "hammered"
    assert judged(BUSY, "", None, [REFUSED] * 99).found == ("hammered", "hung")


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (None, "paid twice"),
        ("pause=1@after_role", "paid twice"),
        ("fin@after_finish", "paid twice"),
        ("rst@after_done", "paid twice"),
        ("fin@after_characters:131", "survived"),
        ("fin@after_role", "survived"),
        ("malformed@after_token", "survived"),
    ],
)
def test_a_whole_answer_is_not_asked_for_again(fault: str | None, outcome: str) -> None:
    sent = HALF if fault and "characters" in fault else TEXT
    assert judged(CUT, TEXT, 0, [request(fault, sent=sent), request()]).outcome == outcome


def test_a_body_of_json_is_not_whole_before_its_framing_ends() -> None:
    cut = request("fin@after_finish", sent=f'{{"text": "{TEXT}"}}', body=b"{}")
    assert judged(CUT, TEXT, 0, [cut, request(body=b"{}")]).outcome == "survived"
    whole = request(sent=f'{{"text": "{TEXT}"}}', body=b"{}")
    assert judged(CUT, TEXT, 0, [whole, request(body=b"{}")]).outcome == "paid twice"


def test_an_answer_that_shows_nothing_is_refused() -> None:
    answer = ScriptedAnswer(text="Hello")
    for text in ("Hello", "", HALF):
        with pytest.raises(ValueError, match="only the lab's own answer"):
            judged(Scenario("other", answer=replace(answer, text=text)), "Hello", 0, [request()])


def test_a_second_answer_that_is_of_no_use_was_paid_for() -> None:
    assert judged(CUT, HALF, 1, [FIRST, request()]).outcome == "paid twice"
    assert judged(CUT, HALF, 0, [FIRST, request()]).found == ("failed silently", "paid twice")
    assert judged(CUT, HALF, 1, [FIRST]).outcome == "failed loudly"
    assert judged(CUT, HALF, 1, [FIRST, FIRST, FIRST]).outcome == "failed loudly"


def test_an_answer_whose_finish_is_a_failure_was_not_whole() -> None:
    failed = Scenario("failed", answer=ScriptedAnswer(text=HALF, finish_reason="error"))
    assert judged(failed, HALF, 1, [request(sent=HALF)]).outcome == "failed loudly"
    assert judged(failed, HALF, 0, [request(sent=HALF)]).outcome == "failed silently"


def test_telling_how_an_answer_ended_is_enough_where_the_scenario_says_so() -> None:
    told = Scenario("filtered", told="(?i)content.?filter")
    assert judged(told, HALF, 0, [request(sent=HALF)]).outcome == "failed silently"
    assert judged(told, HALF, 0, [request(sent=HALF)], complaints="Content filter").outcome == "failed loudly"
    assert judged(CUT, HALF, 0, [FIRST], complaints="Content filter").outcome == "failed silently"


def test_it_is_not_judged_where_nothing_happened_to_it() -> None:
    goaway = Scenario("goaway", faults=["goaway@after_token"], http="2", tls=True)
    unmet = judged(goaway, "", 1, [request("goaway@after_token", sent="")])
    assert (unmet.outcome, unmet.reasons) == ("not judged", ("it does not speak HTTP/2",))
    assert judged(goaway, "", 1, []).reasons == ("no request came: it may not trust the certificate",)
    assert judged(NOTHING, "", 1, []).outcome == "not judged"
    assert judged(NOTHING, "", 0, []).outcome == "failed silently"
    assert judged(Scenario("refused", faults=["rst@connect"]), "", 1, []).outcome == "failed loudly"


def test_what_it_always_does_is_no_fault_of_it() -> None:
    title = request(body=b"{}")
    run = ClientRun(f"{TEXT}\nsummary: {TEXT}", 0, 1.0, [title, request()])
    normal = baseline(run)
    assert normal == Baseline(NUMBERS * 2, before=1)
    assert judge(NOTHING, run, normal).outcome == "survived"
    assert judged(CUT, f"{HALF}\n{HALF}", 0, [title, FIRST], normal=normal).outcome == "failed silently"
    assert judged(CUT, f"{HALF}\n{TEXT}\n{TEXT}", 0, [title, FIRST, request()], normal=normal).outcome == (
        "doubled output"
    )


def test_asking_twice_is_no_usual_way_of_showing_an_answer_twice() -> None:
    run = ClientRun(f"{TEXT}\n{TEXT}", 0, 1.0, [request(), request()])
    assert baseline(run) == Baseline()
    assert judge(NOTHING, run, baseline(run)).found == ("doubled output", "paid twice")


def test_requests_that_are_no_generation_calls_do_not_count() -> None:
    models = RecordedRequest(1, 1, "1.1", "GET", "/v1/models", [], b"", 0.0, done_at=0.0)
    assert judged(NOTHING, TEXT, 0, [models, request(), models]).requests == 1


# -- a client in this process


def ask(url: str) -> str:
    body = json.dumps({"model": "lab", "messages": []}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", body), timeout=30) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def test_a_function_is_judged_too() -> None:
    assert run_scenario(NOTHING, ask).outcome == "survived"
    assert run_scenario(BUSY, ask).outcome == "failed loudly"
    assert run_scenario(CUT, lambda url: HALF if ask(url) else "").outcome == "failed loudly"
    assert run_scenario(NOTHING, lambda url: ask(url) + ask(url)).found == ("doubled output", "paid twice")
    assert run_scenario(NOTHING, lambda url: ask(url)[:40]).outcome == "failed silently"
    with pytest.raises(ValueError, match="has TLS: use ScenarioServer"):
        run_scenario(Scenario("safe", tls=True), ask)
