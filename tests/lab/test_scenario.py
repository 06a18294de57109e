from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from lab.clients import RawClient, text_of
from unbroken.lab import Fault, RecordedRequest, Scenario, catalogue, find_scenario, load_scenario, parse_scenario
from unbroken.lab.fault import CONNECTION_POINTS
from unbroken.lab.numbered import NUMBERS, TEXT, numbers_in
from unbroken.lab.routes import draft_response, speech_of
from unbroken.lab.script import SendBody, compose

FOLDER = Path(sys.modules["unbroken.lab"].__file__ or "").parent / "scenarios"


def test_a_scenario_names_its_faults_as_the_command_line_does() -> None:
    found = parse_scenario('about = "Cut."\nfaults = ["rst@before_headers", "none", "stall=2@after_role"]', "mine")
    assert found.name == "mine"
    assert found.script == (Fault("rst", "before_headers"), None, Fault("stall", "after_role", seconds=2))


def test_what_words_cannot_say_stands_in_a_table() -> None:
    found = parse_scenario(
        'about = "Busy."\n'
        'faults = [{ fault = "status=429@before_headers", times = 2, headers = { retry-after = "1" } }]',
        "busy",
    )
    assert found.script == (Fault("status", "before_headers", status=429, headers={"retry-after": "1"}),) * 2


def test_the_answer_can_be_changed() -> None:
    found = parse_scenario('about = "Slow."\n[answer]\nthink = 2\nframing = "close"\ndone = false', "slow")
    assert (found.answer.think, found.answer.framing, found.answer.done) == (2, "close", False)
    assert "".join(found.answer.tokens) == TEXT


def test_a_script_that_is_drawn_is_the_same_every_time() -> None:
    faults = ["rst@before_headers", "fin@after_role", "clean_end@after_role", None]
    drawn = Scenario("drawn", faults=faults, draw=50, seed=1)
    assert drawn.script == Scenario("drawn", faults=faults, draw=50, seed=1).script
    assert drawn.script != Scenario("drawn", faults=faults, draw=50, seed=2).script
    assert len(drawn.script) == 50
    assert {str(fault) for fault in drawn.script} == {str(fault) for fault in Scenario("all", faults=faults).script}
    # Written down: the same on every machine, and with every later version.
    assert [fault.kind if fault else "none" for fault in drawn.script[:6]] == DRAWN


DRAWN = ["rst", "none", "none", "fin", "fin", "fin"]


GARBAGE = {
    "about = ": "not TOML",
    "\x00": "not TOML",
    'faults = ["rst@connect"]': "about is missing",
    'about = ""': "about is missing",
    "about = 1": "about: 1 is not allowed; allowed is a text",
    'about = "x"\nfautls = []': "fautls: unknown key; allowed are about, faults",
    'about = "x"\nfaults = "rst@connect"': "faults: 'rst@connect' is not allowed; allowed is a list of faults",
    'about = "x"\nfaults = ["rst@lunch"]': r"faults\[0\]: 'rst@lunch' is not a fault: unknown point; the kinds are rst",
    'about = "x"\nfaults = ["none", "stall=nan@connect"]': r"faults\[1\]: .*seconds cannot be nan",
    'about = "x"\nfaults = ["stall=-1@connect"]': r"faults\[0\]: .*seconds cannot be -1",
    'about = "x"\nfaults = [7]': r"faults\[0\]: 7 is no fault",
    'about = "x"\nfaults = [{ times = 2 }]': r"faults\[0\]: fault is missing",
    'about = "x"\nfaults = [{ fault = "none", seconds = 2 }]': r"faults\[0\]: 'none' is not a fault",
    'about = "x"\nfaults = [{ fault = "rst@connect", times = 0 }]': r"faults\[0\].times: 0 is not allowed",
    'about = "x"\nfaults = [{ fault = "rst@connect", head = {} }]': r"faults\[0\].head: unknown key; allowed are fault",
    'about = "x"\nfaults = [{ fault = "rst@connect", headers = { a = 1 } }]': r"faults\[0\].headers: .* of texts",
    'about = "x"\nfaults = ["rst@handshake"]': "a fault at handshake needs tls",
    'about = "x"\nfaults = ["goaway@after_role"]': 'goaway needs HTTP/2: set http = "2"',
    'about = "x"\nhttp = "2"': "over TLS only",
    'about = "x"\nhttp = "3"': 'http: \'3\' is not allowed; allowed is "1.1" or "2"',
    'about = "x"\ntls = "yes"': "tls: 'yes' is not allowed; allowed is true or false",
    'about = "x"\ndialects = ["latin"]': "unknown dialect 'latin'; the dialects are: openai-chat",
    'about = "x"\ndraw = 3': "draw needs faults",
    'about = "x"\nfaults = ["rst@connect"]\ndraw = 1001': "draw: 1001 is not allowed",
    'about = "x"\ntold = "("': "told is no pattern",
    'about = "x"\nanswer = 1': "answer: 1 is not allowed; allowed is a table",
    'about = "x"\n[answer]\nthink = "long"': "answer.think: 'long' is not allowed; allowed is seconds",
    'about = "x"\n[answer]\nthink = inf': "answer.think: inf is not allowed",
    'about = "x"\n[answer]\nwords = 1': "answer.words: unknown key; allowed are text",
}


@pytest.mark.parametrize("text", GARBAGE)
def test_what_is_no_scenario_is_refused_with_file_and_key_and_what_is_allowed(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=GARBAGE[text]) as caught:
        load_scenario(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"mine\.toml: not TOML: it is not UTF-8"):
        load_scenario(tmp_path / "mine.toml")


def test_the_catalogue_has_about_forty_scenarios_and_begins_with_one_without_a_fault() -> None:
    found = catalogue()
    assert 36 <= len(found) <= 48
    assert next(iter(found)) == "nothing"
    assert found["nothing"].script == ()
    assert len({scenario.about for scenario in found.values()}) == len(found)
    assert all(re.fullmatch(r"[A-Z0-9].*\.", scenario.about) for scenario in found.values())


def test_the_catalogue_covers_every_place_kind_and_transport() -> None:
    faults = [fault for scenario in catalogue().values() for fault in scenario.script if fault]
    assert {fault.kind for fault in faults} >= {
        *("rst", "fin", "clean_end", "stall", "pause", "status", "error_event", "malformed", "short_length"),
        *("truncated_chunk", "bad_chunk", "rst_stream", "goaway", "refused_stream"),
    }
    assert {fault.at for fault in faults} >= {
        *("connect", "handshake", "before_headers", "after_headers", "after_role", "after_characters"),
        *("after_finish", "after_done"),
    }
    assert {(scenario.http, scenario.tls) for scenario in catalogue().values()} == {
        ("1.1", False),
        ("1.1", True),
        ("2", True),
    }


PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "openai-completions": "/v1/completions",
    "anthropic-messages": "/v1/messages",
    "gemini": "/v1beta/models/lab:streamGenerateContent?alt=sse",
    "interactions": "/v1beta/interactions",
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("dialect", PATHS)
def test_the_catalogue_can_be_performed_in_every_dialect(dialect: str, stream: bool) -> None:
    target = PATHS[dialect] if stream else PATHS[dialect].replace("streamGenerateContent?alt=sse", "generateContent")
    body = json.dumps({"model": "lab", "stream": stream}).encode()
    for scenario in catalogue().values():
        request = RecordedRequest(1, 1, scenario.http, "POST", target, [], body, 0.0)
        for fault in [*scenario.script[:3], None]:
            if scenario.suits(dialect) and (fault is None or fault.at not in CONNECTION_POINTS):
                steps = compose(draft_response(request, scenario.answer, fault), fault, speech_of(request))
                sent = b"".join(step.data for step in steps if isinstance(step, SendBody)).decode()
                whole = scenario.answer == Scenario("mine").answer
                assert set(numbers_in(sent)) == set(NUMBERS) or fault or not whole, scenario.name


def test_every_file_of_the_catalogue_is_small_and_says_what_it_is_for() -> None:
    for path in FOLDER.glob("*.toml"):
        assert len(path.read_text().splitlines()) < 12, path
        assert tomllib.loads(path.read_text())["about"]


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown scenario 'nothin'; the scenarios are: nothing, "):
        find_scenario("nothin")


def test_its_server_performs_it_for_generation_calls_alone() -> None:
    scenario = Scenario("busy", faults=["status=503@before_headers"])
    with scenario.upstream(before=1) as upstream, RawClient(upstream.port) as client:
        client.request("GET", "/v1/models")
        assert client.read_response()[0].status_code == 200
        statuses = []
        for _ in range(3):
            client.post()
            response, body = client.read_response()
            statuses.append(response.status_code)
    assert statuses == [200, 503, 200]
    assert numbers_in(text_of(body)) == NUMBERS


def test_its_server_needs_a_certificate_for_tls() -> None:
    with pytest.raises(ValueError, match="needs an ssl_context"):
        Scenario("safe", tls=True).upstream()
