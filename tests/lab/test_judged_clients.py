"""The verdict on purpose-built clients: thirteen bad ones, which are found out, and two good ones, which are not.

Each is a program of its own in ``judged/``, over the standard library alone, and is judged by the command.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.programs import UNBROKEN, environment
from unbroken.lab import catalogue

HERE = Path(__file__).parent / "judged"
PROGRAM = (sys.executable, "-S")
SHORT, LONG = "15", "100"
"""Seconds: for those who hang it is waited that long; nobody else needs a part of it."""

BAD: Mapping[str, Mapping[str, str]] = {
    "takes_a_part_for_the_whole": {
        "clean-end-in-answer": "failed silently",
        "clean-end-in-prelude": "failed silently",
        "clean-end-in-event": "failed silently",
        "close-delimited-end": "failed silently",
        "empty-body": "failed silently",
        "web-page": "failed silently",
        "close-in-answer": "failed loudly",
        "nothing": "survived",
    },
    "doubles_at_a_retry": {
        "close-in-answer": "doubled output",
        "clean-end-in-answer": "doubled output",
        "close-in-prelude": "survived",
        "nothing": "survived",
    },
    "hangs_at_a_cut": {"close-in-answer": "hung", "clean-end-in-answer": "hung", "nothing": "survived"},
    "waits_for_the_end_of_the_connection": {"open-after-done": "hung", "nothing": "survived"},
    "retries_what_stays_the_same": {
        "bad-request": "hammered",
        "unauthorized": "hammered",
        "quota-exhausted": "hammered",
        "rate-limited": "survived",
        "unavailable": "survived",
    },
    "ignores_retry_after": {
        "rate-limited": "hammered",
        "rate-limited-for-long": "hammered",
        "unavailable": "survived",
        "unauthorized": "failed loudly",
    },
    "retries_without_end": {
        "unavailable-always": "hammered",
        "reset-always": "hammered",
        "close-in-answer": "survived",
    },
    "pays_twice": {"no-terminator": "paid twice", "close-after-finish": "paid twice", "nothing": "survived"},
    "makes_sure": {"nothing": "paid twice", "silence-in-prelude": "paid twice"},
    "swallows_an_error_event": {
        "error-event-in-answer": "failed silently",
        "error-event-in-prelude": "failed silently",
        "clean-end-in-answer": "failed loudly",
    },
    "succeeds_at_a_refusal": {
        "unauthorized": "failed silently",
        "unavailable-always": "failed silently",
        "bad-request": "failed silently",
        "close-in-answer": "failed loudly",
    },
    "takes_any_finish": {
        "content-filter": "failed silently",
        "finish-error": "failed silently",
        "clean-end-in-answer": "failed loudly",
    },
    "succeeds_at_a_lost_connection": {
        "close-in-answer": "doubled output",
        "reset-always": "failed silently",
        "reset-before-headers": "survived",
    },
}
"""What each is found out by, and where it is as good as any."""

GOOD = ("good_and_loud", "good_and_patient")
HOPELESS = {
    *("reset-always", "unavailable-always", "bad-request", "unauthorized", "quota-exhausted"),
    *("rate-limited-for-long", "web-page", "content-filter", "finish-error"),
}
"""What even the patient one cannot survive."""

HANGING = ("hangs_at_a_cut", "waits_for_the_end_of_the_connection", "retries_without_end")


def judged(client: str, home: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code of the command, and what it says of a client, by scenario."""
    command = [*UNBROKEN, "lab", "verdict", "--json", *options, "--", *PROGRAM, str(HERE / f"{client}.py")]
    ran = subprocess.run(
        command, env=environment(home), capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
    )
    assert ran.stdout, ran.stderr
    said = json.loads(ran.stdout)
    assert said["seconds"] < 180  # the whole catalogue, for a client that answers at once; it takes five or ten
    return ran.returncode, {found["scenario"]: found for found in said["scenarios"]}


def scenarios(expected: Mapping[str, str]) -> list[str]:
    return [word for name in expected for word in ("--scenario", name)]


def test_there_are_twelve_bad_clients_and_a_test_for_each() -> None:
    assert len(BAD) >= 12
    assert {path.stem for path in HERE.glob("*.py")} == {*BAD, *GOOD, "chat"}
    found_out = {verdict for expected in BAD.values() for verdict in expected.values()}
    assert found_out >= {"failed silently", "doubled output", "hung", "hammered", "paid twice"}


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(client, marks=() if client in ("doubles_at_a_retry", "takes_any_finish") else pytest.mark.slow)
        for client in BAD
    ],
)
def test_a_bad_client_is_found_out(client: str, tmp_path: Path) -> None:
    timeout = SHORT if client in HANGING else LONG
    code, found = judged(client, tmp_path, "--timeout", timeout, *scenarios(BAD[client]))
    assert {name: one["verdict"] for name, one in found.items()} == BAD[client], found
    assert code == 1


@pytest.mark.slow
@pytest.mark.parametrize("client", GOOD)
def test_a_good_client_is_found_good_by_the_whole_catalogue(client: str, tmp_path: Path) -> None:
    code, found = judged(client, tmp_path, "--timeout", LONG)
    bad = {
        name: one for name, one in found.items() if one["verdict"] not in ("survived", "failed loudly", "not judged")
    }
    assert bad == {}
    assert set(found) == set(catalogue())
    unjudged = [name for name, one in found.items() if one["verdict"] == "not judged"]
    assert all(name.startswith("http2-") or name == "silence-for-ever" for name in unjudged)
    if client == "good_and_patient":
        assert {name for name, one in found.items() if one["verdict"] == "failed loudly"} == HOPELESS
    assert code == 0
