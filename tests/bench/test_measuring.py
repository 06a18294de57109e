"""The parts of the bench that measure nothing: reading a CPU clock, medians, ratios, tables, plots."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from bench.keeping import Timed
from bench.measure import Results, cpu, cpu_until_end, interleaved, percentile, summary
from bench.plot import bars, lines, number
from bench.report import Goal, as_json, page, plots, reached, read, table, updated

linux = pytest.mark.skipif(sys.platform != "linux", reason="the bench reads /proc")


@linux
def test_the_cpu_of_a_process_is_that_of_its_threads_even_after_they_have_ended() -> None:
    spent: list[int] = []

    def work() -> None:
        sum(range(200_000))
        spent.append(time.thread_time_ns())

    before = cpu(os.getpid())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert cpu(os.getpid()) - before >= spent[0] / 1e3


@linux
def test_the_cpu_of_a_process_that_has_ended_is_counted() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "pass"]) as running:
        assert cpu_until_end(running) > 0


@linux
def test_a_process_that_fails_is_no_measurement() -> None:
    with (
        subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"]) as running,
        pytest.raises(RuntimeError, match="ended with 3"),
    ):
        cpu_until_end(running)


def test_a_summary_has_the_median_and_the_quartiles() -> None:
    told = summary([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (told.low, told.median, told.high) == (2.0, 3.0, 4.0)
    assert summary([7.0]).median == summary([7.0]).high == 7.0


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    assert percentile(range(1, 101), share) == value


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    results = Results()
    for ours, theirs in ((1.0, 2.0), (30.0, 10.0), (2.0, 4.0)):
        results.add("relay", "µs", "ours", ours)
        results.add("relay", "µs", "theirs", theirs)
    assert results.ratio(("relay", "µs", "ours"), ("relay", "µs", "theirs")) == 0.5
    assert results.ratio(("relay", "µs", "ours"), ("relay", "µs", "nobody")) is None
    assert reached(results, Goal("", ("relay", "µs", "ours"), 3)) == 2.0


def test_every_other_round_goes_backwards() -> None:
    ran: list[str] = []
    interleaved(2, {name: lambda name=name: ran.append(name) for name in "ab"}, "")
    assert ran == ["a", "b", "b", "a"]


@pytest.mark.parametrize(
    ("value", "written"), [(0, "0"), (0.344, "0.344"), (2.8, "2.80"), (73.1, "73.1"), (1073.4, "1,073")]
)
def test_a_number_has_three_digits_that_say_something(value: float, written: str) -> None:
    assert number(value) == written


@pytest.fixture
def results() -> Results:
    made = Results(missing={"nginx": "apt-get install nginx"}, load={"relay": [0.5, 1.5]})
    for value in (1.0, 2.0, 3.0):
        made.add("relay", "µs CPU an event, paced", "unbroken relay", value)
        made.add("relay", "µs CPU an event, paced", "ASGI + httpx2", 4 * value)
        for point in (1000, 4000, 16000, 64000):
            made.add("growth, events", str(point), "unbroken relay", value * point)
    return made


def test_a_table_has_a_row_for_each_contestant(results: Results) -> None:
    assert list(table(results, "relay")) == [
        "| | µs CPU an event, paced |",
        "|---|---|",
        "| unbroken relay | 2.00 (1.50–2.50) |",
        "| ASGI + httpx2 | 8.00 (6.00–10.0) |",
    ]


def test_the_page_says_which_goals_are_met_and_who_is_missing(results: Results) -> None:
    written = page(results, {"machine": "a test"})
    assert "| relay, paced: at most half of ASGI + httpx2 | 0.500x | 0.250x | met |" in written
    assert "steep | 1.25x | 1.00x | met |" in written
    assert "* left out: nginx: apt-get install nginx" in written
    assert "3x nginx" not in written


def test_a_run_can_be_read_again(results: Results, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(as_json(results, {"machine": "a test"}))
    assert read(file) == (results, {"machine": "a test"})


def test_a_later_run_takes_the_place_of_the_sides_that_it_measured(results: Results) -> None:
    later = Results({("relay", "µs", "nobody"): [7.0], ("keeping", "µs", "memory"): [1.0]}, load={"relay": [1.0, 1.0]})
    now = {"machine": "another", "date": "today", "commit": "abc", "rounds": 1, "store": "Redis"}
    whole, about = updated(results, {"machine": "a test"}, later, now)
    assert {side for side, _, _ in whole.values} == {"growth, events", "relay", "keeping"}
    assert [key for key in whole.values if key[0] == "relay"] == [("relay", "µs", "nobody")]
    assert (about["machine"], about["store"]) == ("a test", "Redis")
    assert about["relay, by itself"] == "today, abc, 1 rounds"


def test_events_are_counted_as_they_come_whatever_the_pieces() -> None:
    connection = Timed()
    connection.first, connection.tail = 1.0, b""
    for piece in (b"data: {}\n\nda", b"ta: {}\n\ndata:", b" {}\n\n", b"data: 1\n\ndata: 2\n\n"):
        connection.reads = 0
        connection.data_received(piece)
    assert len(connection.times) == 5


def test_plots_are_well_formed(results: Results) -> None:
    pictures = [picture for _, picture in plots(results).values()]
    assert len(pictures) == 2
    for picture in (*pictures, bars("a < b", "µs", {"one": 1.0}), lines("a & b", "x", "y", {"one": {1: 1.0}})):
        ET.fromstring(picture)
