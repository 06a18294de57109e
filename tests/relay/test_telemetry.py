"""The access log: what a line says, and that nobody but the relay can write one. The metrics: which series known turns
leave, that Prometheus can read them, and that nobody can make more of them.
"""

from __future__ import annotations

import datetime
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
from relay.records import STARTED, answer, buckets, cut, other, series, turn
from relay.serving import Call, Serve, Served, poll
from unbroken.core.actions import PathNotice, RetryEvent
from unbroken.core.failures import Failure, Phase
from unbroken.core.policy import Policy
from unbroken.lab import Fault, Upstream
from unbroken.relay.recorder import Outcome, RequestRecord
from unbroken.relay.telemetry import MAX_TEXT, AccessLog, Metrics, timestamp

# The access log

FORMATS = pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])

FORGED = "cafe0002 POST /forged · 200 answered · 0.0 s"
HOSTILE = [
    f"/v1\n{FORGED}",
    f"/v1\r{FORGED}",
    f"/v1\r\n{FORGED}",
    f"/v1\u2028{FORGED}",
    f"/v1\x85{FORGED}",
    "/v1\x1b[2K\x1b[1A\x1b[31mred",
    "/v1\x9b31mred",
    "/v1\x7f\x08\x00",
    "/v1\u202egnp.exe",
    "/v1\U000e0041",
    "/v1\ud800",
]


def written(record: RequestRecord, **options: bool) -> list[str]:
    lines: list[str] = []
    AccessLog(lines.append, **options).ended(record)
    return lines


def line(record: RequestRecord, **options: bool) -> str:
    (only,) = written(record, **options)
    return only


def again(*, advice: str = "", **lost: Any) -> RetryEvent:
    return RetryEvent("replay", 1, 4, Failure.RESET, cut(1, 60.0, **lost), 0.0, advice)


class TestText:
    def test_a_turn_that_went_well(self) -> None:
        record = turn(elapsed=5.25, first_output=1.23, bytes_in=10, bytes_out=20)
        assert line(record) == "cafe0001 POST /v1/chat/completions · 200 answered · 5.2 s · first output 1.2 s"

    def test_a_turn_that_was_saved_says_what_was_lost(self) -> None:
        record = turn(cut(), answer(2), first_output=1.0, replays=1)
        assert line(record).endswith("· first output 1.0 s · 2 attempts, lost reset@prelude")

    def test_a_failure_says_why(self) -> None:
        record = other(elapsed=5.25, status=None, outcome=Outcome.LEFT, detail="it was so")
        assert line(record) == "cafe0002 GET /v1/models · - left · 5.2 s · it was so"

    def test_a_turn_has_no_line_before_it_ends(self) -> None:
        lines: list[str] = []
        AccessLog(lines.append).started()
        assert lines == []

    def test_a_store_that_fails_has_a_line(self) -> None:
        lines: list[str] = []
        AccessLog(lines.append, quiet=True).store("it is full")
        AccessLog(lines.append).store("")
        assert lines == ["the store fails, so that turns cannot be collected: it is full", "the store is back"]
        AccessLog(lines.append, as_json=True).store("it is full")
        assert json.loads(lines[-1])["store"] == "it is full"

    def test_every_retry_and_replay_has_a_line_and_its_advice_another(self) -> None:
        lines: list[str] = []
        AccessLog(lines.append).retried("cafe0001", again(advice="take another path"))
        assert lines == [
            "cafe0001 ↻ cut after 61.0 s, before any output (connection reset) · replaying, attempt 2 of 4",
            "cafe0001   take another path",
        ]

    def test_a_path_that_does_not_answer_has_a_line(self) -> None:
        lines: list[str] = []
        AccessLog(lines.append).noticed("cafe0001", PathNotice(1, "no answer from the path for 20 s, still waiting"))
        assert lines == ["cafe0001 … no answer from the path for 20 s, still waiting"]


class TestJson:
    def test_says_everything(self) -> None:
        record = turn(
            cut(failure="busy", phase=Phase.HEADERS),
            cut(2),
            answer(3),
            elapsed=5.2504,
            first_output=1.50049,
            retries=1,
            replays=1,
            seams=(7, 1240),
            resumes=("41",),
            unacknowledged=("cancel",),
            bytes_in=10,
            bytes_out=20,
            heartbeats=2,
            detail="why",
        )
        assert json.loads(line(record, as_json=True)) == {
            "time": "2027-01-15T08:00:05.250Z",
            "id": "cafe0001",
            "method": "POST",
            "path": "/v1/chat/completions",
            "upstream": "lab",
            "dialect": "openai-chat",
            "status": 200,
            "outcome": "answered",
            "attempts": 3,
            "retries": 1,
            "replays": 1,
            "lost": ["busy@headers", "reset@prelude"],
            "seams": [7, 1240],
            "resumes": ["41"],
            "unacknowledged": ["cancel"],
            "elapsed": 5.25,
            "first_output": 1.5,
            "bytes_in": 10,
            "bytes_out": 20,
            "heartbeats": 2,
            "detail": "why",
        }

    def test_says_in_words_where_an_answer_was_continued(self) -> None:
        assert "continued at characters 7 and 1,240" in line(turn(cut(), answer(2), seams=(7, 1240)))
        assert "continued at character 7" in line(turn(cut(), answer(2), seams=(7,)))

    def test_says_in_words_where_a_stream_was_taken_up_and_what_became_of_its_response(self) -> None:
        assert "resumed after events 7, 40 and 41" in line(turn(cut(), answer(2), resumes=("7", "40", "41")))
        told = "a response that nobody reads may run on at the server, billed"
        assert told in line(turn(cut(), answer(2), background=told))

    def test_has_one_line_for_a_request_however_many_attempts_it_takes(self) -> None:
        lines: list[str] = []
        log = AccessLog(lines.append, as_json=True)
        log.retried("cafe0001", again(advice="take another path"))
        log.noticed("cafe0001", PathNotice(1, "no answer from the path for 20 s, still waiting"))
        assert lines == []


@FORMATS
class TestHostile:
    @pytest.mark.parametrize("path", HOSTILE, ids=ascii)
    def test_a_path_or_a_detail_cannot_forge_a_line_or_speak_to_a_terminal(self, path: str, as_json: bool) -> None:
        for record in (turn(path=path), turn(detail=path)):
            said = line(record, as_json=as_json)
            assert said.isprintable()
            assert len(said.splitlines()) == 1
            if as_json:
                assert json.loads(said)["id"] == "cafe0001"

    def test_a_long_path_or_detail_is_cut_short(self, as_json: bool) -> None:
        said = line(turn(path="/" + "a" * 60_000, detail="b" * 60_000), as_json=as_json)
        assert "a" * (MAX_TEXT - 1) + "…" in said
        assert "b" * MAX_TEXT + "…" in said
        assert len(said.encode()) < 4096  # what a pipe takes at once, of several processes too

    def test_the_words_about_an_attempt_are_as_plain(self, as_json: bool) -> None:
        lines: list[str] = []
        lost = again(advice=f"x\n{FORGED}", detail=f"x\x1b[2K\n{FORGED}", status=503)
        AccessLog(lines.append, as_json=as_json).retried("cafe0001", lost)
        assert len(lines) == (0 if as_json else 2)
        assert all(said.isprintable() and said.startswith("cafe0001") for said in lines)


@FORMATS
@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (turn(), False),
        (other(), False),
        (turn(cut(failure="busy", phase=Phase.HEADERS), answer(2), retries=1), True),
        (turn(cut(), answer(2), replays=1), True),
        *((turn(outcome=outcome), True) for outcome in Outcome if outcome not in ("answered", "passed")),
    ],
    ids=lambda value: f"{value.outcome}-{len(value.attempts)}" if isinstance(value, RequestRecord) else "",
)
def test_quiet_shows_what_went_wrong_or_was_saved(record: RequestRecord, shown: bool, as_json: bool) -> None:
    assert len(written(record, as_json=as_json, quiet=True)) == shown


def test_the_time_is_utc_to_the_millisecond() -> None:
    before = datetime.datetime.now(datetime.UTC)
    said = timestamp()
    assert said.endswith("Z")
    assert len(said) == len("2026-07-01T12:00:00.000Z")
    assert abs(datetime.datetime.fromisoformat(said) - before) < datetime.timedelta(seconds=5)
    assert timestamp(STARTED + 0.25) == "2027-01-15T08:00:00.250Z"


# The metrics

QUICK = Policy(backoff_initial=0.01, backoff_max=0.02)

NOTHING = {
    "unbroken_attempts_again_total{kind=replay}": 0.0,
    "unbroken_attempts_again_total{kind=retry}": 0.0,
    "unbroken_heartbeats_total": 0.0,
    "unbroken_sent_bytes_total{kind=other}": 0.0,
    "unbroken_sent_bytes_total{kind=turn}": 0.0,
    "unbroken_turns_running": 0.0,
}


def end(metrics: Metrics, record: RequestRecord) -> None:
    metrics.started()
    metrics.ended(record)


def counted(metrics: Metrics) -> dict[str, float]:
    return series(metrics.text())


class TestSeries:
    def test_before_the_first_turn(self) -> None:
        assert counted(Metrics()) == NOTHING

    def test_a_turn_that_runs(self) -> None:
        metrics = Metrics()
        metrics.started()
        metrics.started()
        metrics.retried("cafe0001", again())
        assert counted(metrics) == NOTHING | {"unbroken_turns_running": 2}

    def test_an_answer(self) -> None:
        metrics = Metrics()
        end(metrics, turn(first_output=1.5, bytes_out=300, heartbeats=2))
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
        end(metrics, turn(*attempts, retries=1, replays=2))
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
        metrics.ended(other(outcome=Outcome.PASSED, bytes_out=70))
        metrics.ended(other(outcome=Outcome.REJECTED, bytes_out=30))
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
        metrics.ended(other(outcome=outcome, bytes_out=1))
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
    poll(lambda: [turn.driver.phase for turn in served.relay.recorder.live.values()] == [Phase.PRELUDE])
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
    poll(lambda: not served.relay.recorder.live)
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
from relay.records import answer, cut, turn
from unbroken.relay.telemetry import Metrics

metrics = Metrics()
print("ready", flush=True)
for line in sys.stdin:
    match line.strip():
        case "begin":
            metrics.started()
        case "end":
            figures = {"first_output": float(sys.argv[1]), "bytes_out": 100, "heartbeats": 1, "replays": 1}
            metrics.ended(turn(cut(1, 60.0), answer(2), **figures))
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
