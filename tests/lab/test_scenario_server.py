"""What a test of a client is given of a scenario."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from unbroken.lab import Fault, Scenario, ScriptedAnswer
from unbroken.lab.numbered import TEXT
from unbroken.lab.scenario_server import Part, ScenarioServer, scenario_of

WHOLE = Scenario("whole")


def serving(scenario: Scenario, tmp_path: Path, **options: Any) -> ScenarioServer:
    return ScenarioServer(scenario, lambda: tmp_path, **options)


def chat(base_url: str) -> str:
    body = b'{"model": "m", "stream": true, "messages": []}'
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{base_url}/chat/completions", body, headers), timeout=30
    ) as response:
        data: bytes = response.read()
    return data.decode()


@pytest.mark.parametrize(
    ("parts", "script"),
    [
        ((), ()),
        (("reset-before-headers",), (Fault("rst", "before_headers"),)),
        (("rst@after_role",), (Fault("rst", "after_role"),)),
        ((None, "none", Fault("fin", "connect")), (None, None, Fault("fin", "connect"))),
        ((Scenario("own", faults=["rst@connect"]),), (Fault("rst", "connect"),)),
    ],
)
def test_a_scenario_is_named_in_many_ways(parts: Sequence[Part], script: Sequence[Fault | None]) -> None:
    assert scenario_of(parts).script == script


@pytest.mark.parametrize("as_text", [True, False])
def test_a_file_is_one(as_text: bool, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('about = "Reset once."\nfaults = ["rst@after_role"]')
    found = scenario_of([str(path) if as_text else path])
    assert (found.name, found.script) == ("own", (Fault("rst", "after_role"),))


def test_what_else_a_scenario_takes_is_given_beside_faults() -> None:
    found = scenario_of(["rst@after_role", "fin@after_role"], draw=3, seed=2, name="drawn")
    assert (found.name, len(found.script), found.seed) == ("drawn", 3, 2)


@pytest.mark.parametrize(
    ("parts", "fields", "reason"),
    [
        (["nope"], {}, "the scenarios are"),
        (["nope@nowhere"], {}, "the kinds are"),
        (["nothing", "rst@after_role"], {}, "stands alone"),
        (["rst@after_role", WHOLE], {}, "stands alone"),
        (["nothing"], {"tls": True}, "stands alone"),
        ([], {"tls": True}, "stands alone"),
        (["rst@handshake"], {}, "needs tls"),
    ],
)
def test_mistakes(parts: Sequence[Part], fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        scenario_of(parts, **fields)


def test_a_client_that_is_answered_has_survived(tmp_path: Path) -> None:
    with serving(WHOLE, tmp_path) as lab:
        assert lab.answer == TEXT
        assert lab.base_url == f"{lab.origin}/v1"
        verdict = lab.run(chat)
        assert (verdict.outcome, verdict.requests) == ("survived", 1)
        assert [request.path for request in lab.calls] == ["/v1/chat/completions"]
        assert lab.calls == lab.requests


def test_an_exception_is_a_loud_failure(tmp_path: Path) -> None:
    with serving(Scenario("reset", faults=["rst@before_headers"]), tmp_path) as lab:
        verdict = lab.run(chat)
        assert (verdict.outcome, verdict.is_fine) == ("failed loudly", True)
        assert lab.verdict(error=ValueError("cut")).outcome == "failed loudly"


def test_a_part_of_the_answer_is_a_silent_failure(tmp_path: Path) -> None:
    with serving(Scenario("cut", faults=["clean_end@after_characters:131"]), tmp_path) as lab:
        assert lab.run(chat).outcome == "failed silently"
        assert lab.verdict("word01of24", exit_code=None).outcome == "hung"


@pytest.mark.parametrize("as_text", [True, False])
def test_a_finished_process_is_judged(as_text: bool, tmp_path: Path) -> None:
    with serving(WHOLE, tmp_path) as lab:
        chat(lab.base_url)
        whole: Any = TEXT if as_text else TEXT.encode()
        ended: subprocess.CompletedProcess[Any] = subprocess.CompletedProcess([], 0, whole, None)
        assert lab.verdict(ended).outcome == "survived"
        failed: subprocess.CompletedProcess[Any] = subprocess.CompletedProcess([], 3, whole[:10], whole[:0])
        assert lab.verdict(failed).outcome == "failed loudly"


def test_calls_before_the_turn_are_spared(tmp_path: Path) -> None:
    scenario = Scenario("cut", faults=["clean_end@after_characters:131"])
    with serving(scenario, tmp_path, before=1) as lab:
        assert lab.run(lambda url: chat(url) and chat(url)).outcome == "failed silently"
        assert [call.fault for call in lab.calls] == [None, *scenario.script]


def test_the_variables_lead_there(tmp_path: Path) -> None:
    paths = {"OPENAI_BASE_URL": "/v1", "ANTHROPIC_BASE_URL": ""}
    with serving(Scenario("tls", tls=True), tmp_path, paths=paths, keys=["OPENAI_API_KEY"]) as lab:
        environ = lab.environ
        assert environ["OPENAI_BASE_URL"] == lab.base_url
        assert environ["ANTHROPIC_BASE_URL"] == lab.origin
        assert environ["OPENAI_API_KEY"]
        assert environ["UNBROKEN_JOURNAL"] == "false"
        assert environ["SSL_CERT_FILE"] == str(lab.ca_file)
        assert lab.origin.startswith("https://")


def test_an_answer_of_ones_own_cannot_be_judged(tmp_path: Path) -> None:
    with serving(Scenario("own", answer=ScriptedAnswer(text="Hello.")), tmp_path) as lab:
        assert "Hello." in chat(lab.base_url)
        with pytest.raises(ValueError, match="leave the text out"):
            lab.verdict("Hello.")
