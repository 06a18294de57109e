"""The metrics: which series known turns leave, that Prometheus can read them, and that nobody can make more of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.programs import environment
from relay.asked import ANTHROPIC, CHAT
from relay.noted import answer, buckets, cut, report, series, turn
from relay.serving import Call, Serve, Served, poll
from unbroken.core.failures import Failure, Phase
from unbroken.core.policy import Policy
from unbroken.lab import Fault, Upstream
from unbroken.relay.metrics import Metrics
from unbroken.relay.records import Outcome, TurnRecord

QUICK = Policy(backoff_initial=0.01, backoff_max=0.02)

NOTHING = {
    "unbroken_attempts_again_total{kind=replay}": 0.0,
    "unbroken_attempts_again_total{kind=retry}": 0.0,
    "unbroken_heartbeats_total": 0.0,
    "unbroken_sent_bytes_total{kind=other}": 0.0,
    "unbroken_sent_bytes_total{kind=turn}": 0.0,
    "unbroken_turns_running": 0.0,
}


def end(metrics: Metrics, record: TurnRecord, **sent_again: int) -> None:
    metrics.begun()
    metrics.ended(record, report(record, **sent_again))


def counted(metrics: Metrics) -> dict[str, float]:
    return series(metrics.text())


class TestSeries:
    def test_before_the_first_turn(self) -> None:
        assert counted(Metrics()) == NOTHING

    def test_a_turn_that_runs(self) -> None:
        metrics = Metrics()
        metrics.begun()
        metrics.begun()
        assert counted(metrics) == NOTHING | {"unbroken_turns_running": 2}

    def test_an_answer(self) -> None:
        metrics = Metrics()
        end(metrics, turn(first_output=1.5, bytes=300, heartbeats=2))
        assert counted(metrics) == NOTHING | {
            "unbroken_turns_total{dialect=openai-chat,outcome=answered,upstream=lab}": 1,
            "unbroken_attempts_total{failure=none,phase=complete,upstream=lab}": 1,
            "unbroken_first_output_seconds_count{upstream=lab}": 1,
            "unbroken_first_output_seconds_sum{upstream=lab}": 1.5,
            "unbroken_sent_bytes_total{kind=turn}": 300,
            "unbroken_heartbeats_total": 2,
        }

    def test_an_answer_that_was_saved(self) -> None:
        metrics = Metrics()
        attempts = [cut(1, 60.0), cut(2, 61.0), cut(3, failure="busy", phase=Phase.HEADERS), answer(4)]
        end(metrics, turn(*attempts), retries=1, replays=2)
        assert counted(metrics) == NOTHING | {
            "unbroken_turns_total{dialect=openai-chat,outcome=answered,upstream=lab}": 1,
            "unbroken_turns_saved_total{upstream=lab}": 1,
            "unbroken_attempts_total{failure=none,phase=complete,upstream=lab}": 1,
            "unbroken_attempts_total{failure=reset,phase=prelude,upstream=lab}": 2,
            "unbroken_attempts_total{failure=busy,phase=headers,upstream=lab}": 1,
            "unbroken_attempts_again_total{kind=replay}": 2,
            "unbroken_attempts_again_total{kind=retry}": 1,
            "unbroken_silence_at_cut_seconds_count{upstream=lab}": 2,
            "unbroken_silence_at_cut_seconds_sum{upstream=lab}": 121,
        }

    def test_what_was_no_turn(self) -> None:
        metrics = Metrics()
        metrics.served(Outcome.PASSED, 70)
        metrics.served(Outcome.REJECTED, 30)
        assert counted(metrics) == NOTHING | {
            "unbroken_requests_total{outcome=passed}": 1,
            "unbroken_requests_total{outcome=rejected}": 1,
            "unbroken_sent_bytes_total{kind=other}": 100,
        }

    def test_histograms_tell_the_idle_timers_of_the_field_apart(self) -> None:
        metrics = Metrics()
        for silent in (29.0, 59.0, 61.0, 300.5, 5000.0):
            end(metrics, turn(cut(1, silent), answer(2), first_output=silent))
        for name in ("unbroken_silence_at_cut_seconds", "unbroken_first_output_seconds"):
            found = buckets(metrics.text(), name, upstream="lab")
            assert [found[bound] for bound in ("20.0", "30.0", "45.0", "60.0", "90.0", "600.0")] == [0, 1, 1, 2, 3, 4]
            assert found["+Inf"] == 5

    def test_two_relays_in_one_process_do_not_share(self) -> None:
        one, other = Metrics(), Metrics()
        end(one, turn())
        assert counted(other) == NOTHING


def test_every_outcome_failure_and_phase_can_be_read_by_prometheus() -> None:
    metrics = Metrics()
    for outcome in Outcome:
        end(metrics, turn(outcome=outcome))
        metrics.served(outcome, 1)
    for failure in Failure:
        for phase in Phase:
            end(metrics, turn(cut(failure=failure.code, phase=phase)))
    text = metrics.text().decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.name.startswith("unbroken_") for family in families)
    assert len(series(text)) < 16 + len(Failure) * len(Phase) + 2 * len(Outcome)
    assert text.endswith("\n")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    faults = [
        None,  # answered
        Fault("rst", "after_role"),  # saved by a replay
        None,
        Fault("status", "before_headers", status=503),  # saved by a retry
        None,
        Fault("rst", "after_token"),  # cut
        Fault("status", "before_headers", status=400),  # refused
        Fault("error_event", "after_token"),  # failed
        Fault("stall", "after_headers"),  # left
        None,  # passed
    ]
    with Upstream(faults=faults) as server:
        yield server


def test_known_turns_leave_known_series(serve: Serve, upstream: Upstream, call: Call) -> None:
    served = serve(upstream.url, policy=QUICK)
    client = call(served)
    for asked in (CHAT, ANTHROPIC, CHAT):  # answered, saved, saved
        client.ask_json(*asked.request())
    call(served).ask_json(*CHAT.request())  # cut: the connection ends
    for _ in range(2):  # refused, failed
        client.ask_json(*CHAT.request())
    leaving = call(served)
    CHAT.begin(leaving)
    poll(lambda: [turn.driver.phase for turn in served.relay.ledger.board.live.values()] == [Phase.PRELUDE])
    assert scraped(served, client)["unbroken_turns_running"] == 1
    leaving.close()
    served.entry(6)
    passed = client.ask("GET", "/v1/models")
    rejected = client.ask("GET", "/v2/models")
    served.entry(8)

    found = scraped(served, call(served))
    sent = sum(entry["bytes_out"] for entry in served.entries[:7])
    for name in ("unbroken_first_output_seconds", "unbroken_silence_at_cut_seconds"):
        found.pop(f"{name}_sum{{upstream=lab}}", None)
    assert found == {
        "unbroken_turns_total{dialect=openai-chat,outcome=answered,upstream=lab}": 2,
        "unbroken_turns_total{dialect=anthropic-messages,outcome=answered,upstream=lab}": 1,
        "unbroken_turns_total{dialect=openai-chat,outcome=cut,upstream=lab}": 1,
        "unbroken_turns_total{dialect=openai-chat,outcome=refused,upstream=lab}": 1,
        "unbroken_turns_total{dialect=openai-chat,outcome=failed,upstream=lab}": 1,
        "unbroken_turns_total{dialect=openai-chat,outcome=left,upstream=lab}": 1,
        "unbroken_turns_saved_total{upstream=lab}": 2,
        "unbroken_attempts_total{failure=none,phase=complete,upstream=lab}": 3,
        "unbroken_attempts_total{failure=reset,phase=prelude,upstream=lab}": 1,
        "unbroken_attempts_total{failure=busy,phase=headers,upstream=lab}": 1,
        "unbroken_attempts_total{failure=reset,phase=output,upstream=lab}": 1,
        "unbroken_attempts_total{failure=refused,phase=complete,upstream=lab}": 1,
        "unbroken_attempts_total{failure=transient_error,phase=complete,upstream=lab}": 1,
        "unbroken_attempts_total{failure=cancelled,phase=prelude,upstream=lab}": 1,
        "unbroken_attempts_again_total{kind=replay}": 1,
        "unbroken_attempts_again_total{kind=retry}": 1,
        "unbroken_first_output_seconds_count{upstream=lab}": 5,  # not of an error status
        "unbroken_sent_bytes_total{kind=turn}": sent,
        "unbroken_sent_bytes_total{kind=other}": len(passed.body) + len(rejected.body),
        "unbroken_requests_total{outcome=passed}": 1,
        "unbroken_requests_total{outcome=rejected}": 1,
        "unbroken_turns_running": 0,
        "unbroken_heartbeats_total": 0,
    }


def test_labels_are_the_relays_own_words(serve: Serve, lab: Upstream, call: Call) -> None:
    served = serve(lab.url)
    attacks: list[tuple[str, str, dict[str, Any]]] = [
        (f"P{n}", f"/hostile-path-{n}/v1/chat/completions?q=hostile-query-{n}", {"model": f"hostile-model-{n}"})
        for n in range(20)
    ]
    attacks += [
        (method, f"/{name}/hostile-path/{name}", {"model": "hostile-model"})
        for method in ("POST", "GET", "PATCH", "PROPFIND", "hostile-method")
        for name in ("lab", "v1", "hostile-upstream", "_unbroken")
    ]
    for method, target, body in attacks:
        headers = [("x-hostile-header", "hostile-value"), ("user-agent", "hostile-agent")]
        call(served).ask(method, target, headers, json.dumps(body).encode())
    model = {"model": 'hostile-model"} 1\nhostile_metric 1', "stream": True, "messages": []}
    call(served).ask_json("/v1/chat/completions", model)
    served.entry(16)  # what is no HTTP is not one
    poll(lambda: not served.relay.ledger.board.live)
    found = series(text := call(served).ask("GET", "/_unbroken/metrics").body)
    assert b"hostile" not in text
    assert b"PROPFIND" not in text
    assert len(found) < 25


def scraped(served: Served, client: Any) -> dict[str, float]:
    answer = client.ask("GET", "/_unbroken/metrics")
    assert answer.status == 200
    assert answer.value("content-type").startswith("text/plain; version=")
    return series(answer.body)


_WORKER = """
import sys
from relay.noted import answer, cut, report, turn
from unbroken.relay.metrics import Metrics

metrics = Metrics()
print("ready", flush=True)
for line in sys.stdin:
    match line.strip():
        case "begin":
            metrics.begun()
        case "end":
            record = turn(cut(1, 60.0), answer(2), first_output=float(sys.argv[1]), bytes=100, heartbeats=1)
            metrics.ended(record, report(record, replays=1))
        case "text":
            print(metrics.text().decode().replace("\\n", "\\t"), flush=True)
            continue
    print("done", flush=True)
"""


class Worker:
    """A process of several that share a folder."""

    def __init__(self, folder: Path, first_output: float) -> None:
        env = environment(folder.parent, PROMETHEUS_MULTIPROC_DIR=str(folder))
        env["PYTHONPATH"] += f"{os.pathsep}{Path(__file__).parents[1]}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(first_output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        self._hear("ready")

    def do(self, what: str) -> None:
        self._say(what)
        self._hear("done")

    def series(self) -> dict[str, float]:
        return series(self.text())

    def text(self) -> str:
        self._say("text")
        return self._line().replace("\t", "\n")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()

    def _say(self, what: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().removesuffix("\n")

    def _hear(self, word: str) -> None:
        assert self._line() == word


def test_processes_count_together(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    with ExitStack() as stack:
        one, other = (stack.enter_context(Worker(folder, first_output)) for first_output in (4.0, 40.0))
        for worker in (one, other, other):
            worker.do("begin")
        assert one.series()["unbroken_turns_running"] == 3
        one.do("end")
        other.do("end")
        assert one.text() == other.text()
        found = one.series()
        assert found == NOTHING | {
            "unbroken_turns_total{dialect=openai-chat,outcome=answered,upstream=lab}": 2,
            "unbroken_turns_saved_total{upstream=lab}": 2,
            "unbroken_attempts_total{failure=none,phase=complete,upstream=lab}": 2,
            "unbroken_attempts_total{failure=reset,phase=prelude,upstream=lab}": 2,
            "unbroken_attempts_again_total{kind=replay}": 2,
            "unbroken_first_output_seconds_count{upstream=lab}": 2,
            "unbroken_first_output_seconds_sum{upstream=lab}": 44,
            "unbroken_silence_at_cut_seconds_count{upstream=lab}": 2,
            "unbroken_silence_at_cut_seconds_sum{upstream=lab}": 120,
            "unbroken_sent_bytes_total{kind=turn}": 200,
            "unbroken_heartbeats_total": 2,
            "unbroken_turns_running": 1,
        }
        firsts = buckets(one.text(), "unbroken_first_output_seconds", upstream="lab")
        assert [firsts[bound] for bound in ("2.5", "5.0", "30.0", "45.0", "+Inf")] == [0, 1, 1, 2, 2]
        assert "_created" not in one.text()
