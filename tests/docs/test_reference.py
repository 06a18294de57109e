"""What the docs list is what there is: settings, variables, metrics, fields of the log, refusals; and the examples of
other programs' configuration are taken by them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import choices
from cli.programs import PATIENCE, environment
from cli.relays import Running, running
from docs.pages import ROOT
from ports import free_port
from unbroken.cli.base_urls import VARIABLES
from unbroken.cli.config import CONNECTION_KEYS, KEYS, RELAY_KEYS, UPSTREAM_KEYS, Kind
from unbroken.cli.connection import POLICY_FIELDS
from unbroken.cli.exec import command as execute
from unbroken.cli.presets import PRESETS
from unbroken.cli.relay import command as relay
from unbroken.cli.run import command as run
from unbroken.core.dialect import FinishMeaning
from unbroken.core.dialects import DIALECTS
from unbroken.core.policy import LOCAL_REPLAYS, USUAL_REPLAYS, Policy
from unbroken.core.providers import PROVIDERS
from unbroken.lab import Fault, ScriptedAnswer, Upstream
from unbroken.relay.recorder import Outcome, RequestRecord
from unbroken.relay.settings import Settings
from unbroken.relay.telemetry import AccessLog, Metrics

RELAY, EXEC, CONFIG = ((ROOT / "docs" / name).read_text("utf-8") for name in ("relay.md", "exec.md", "config.md"))


def section(page: str, title: str) -> str:
    """What stands below a heading."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables, without their headings."""
    lines = re.findall(r"^\| (`.*|\d.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def names(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# The configuration file


@pytest.mark.parametrize(
    ("title", "keys", "command"),
    [
        ("The connection", CONNECTION_KEYS, run),
        ("The connection", CONNECTION_KEYS, relay),
        ("The connection", CONNECTION_KEYS, execute),
        ("At the top: `unbroken run`", {key: KEYS[key] for key in KEYS.keys() - CONNECTION_KEYS}, run),
        ("`[relay]`", {key: RELAY_KEYS[key] for key in RELAY_KEYS.keys() - CONNECTION_KEYS}, relay),
    ],
)
def test_every_key_is_told_with_its_flag_and_its_variable(
    title: str, keys: dict[str, Kind], command: click.Command
) -> None:
    table = rows(section(CONFIG, title))
    options = {param.name: param for param in command.params}
    assert {row[0].strip("`") for row in table} == set(keys)
    for key, words, _, *given in table:
        key = key.strip("`")
        assert words == keys[key].words, key
        option = options.get(key)
        told = names(" ".join(given))
        assert told == ([] if option is None else [option.opts[0], option.envvar]), key


def test_usual_values_are_the_usual_ones() -> None:
    usual = {
        row[0].strip("`"): row[2] for title in ("The connection", "`[relay]`") for row in rows(section(CONFIG, title))
    }
    policy, settings = Policy(), Settings(upstreams={})
    assert usual["stall_output"] == "none"
    assert usual["replays"] == f"{USUAL_REPLAYS}; {LOCAL_REPLAYS} for a local model"
    for key, field in POLICY_FIELDS.items():
        told, value = usual[key].strip("`"), getattr(policy, field)
        assert value is None or told == json.dumps(value).strip('"').removesuffix(".0")
    for key in ("heartbeat", "max_turns", "receive_timeout", "grace"):
        assert float(usual[key]) == getattr(settings, key)
    assert (usual["max_body"], usual["max_header"]) == ("64M", "64K")
    assert (settings.max_body, settings.max_header) == (64 * 1024**2, 64 * 1024)
    for param in relay.params:
        if isinstance(param.default, (int, str)) and not isinstance(param.default, bool) and param.name in usual:
            assert usual[param.name].strip("`") == str(param.default), param.name


def test_the_keys_of_an_upstream_are_told() -> None:
    table = rows(section(CONFIG, "`[upstreams.NAME]`"))
    assert [(row[0].strip("`"), row[1]) for row in table] == [(key, kind.words) for key, kind in UPSTREAM_KEYS.items()]
    assert {dialect.name for dialect in DIALECTS} <= set(
        names(" ".join(next(row for row in table if "dialect" in row[0])))
    )


def test_the_variables_of_exec_itself_are_told() -> None:
    own = {param.envvar for param in execute.params if str(param.envvar).startswith("UNBROKEN_EXEC_")}
    assert own == set(re.findall(r"UNBROKEN_EXEC_\w+", CONFIG))


# exec


def test_every_variable_of_exec_is_told() -> None:
    told = {names(row[0])[0]: row[1].strip("`") for row in rows(section(EXEC, "The variables"))}
    assert told == {
        variable: "only where it is set" if path is None else f"/{upstream}{path}"
        for variable, (upstream, path) in VARIABLES.items()
    }


def test_what_is_chosen_for_programs_is_told() -> None:
    told = rows(section(EXEC, "What is chosen for a program that is known"))
    assert [tuple(map(tuple, map(names, row[:3]))) for row in told] == [
        (
            (preset.program,),
            preset.mode,
            (f"--hold {preset.hold}", *(f"{name}={value}" for name, value in preset.environ.items())),
        )
        for preset in PRESETS
    ]
    assert [names(row[3])[0].split()[-1:] for row in told] == [list(preset.but_not) for preset in PRESETS]


# The relay


def test_every_provider_has_its_base_url_told() -> None:
    told = set(re.findall(r"http://127\.0\.0\.1:8765/([\w.]+)", section(RELAY, "Start it")))
    assert told == {*PROVIDERS, "v1", "_unbroken"}


def test_every_metric_is_told_with_its_labels() -> None:
    metrics = Metrics()
    families = {family.name: family for family in metrics._registry.collect()}
    told = {}
    for name, labels in re.findall(r"^\| `(unbroken_\w+)`[^|]*\|([^|]*)\|$", RELAY, re.MULTILINE):
        told[name.removesuffix("_total")] = set(names(labels.partition(":")[0]))
    collectors = [value for value in vars(metrics).values() if hasattr(value, "_labelnames")]
    assert told == {collector._name: set(collector._labelnames) for collector in collectors}
    assert told.keys() == families.keys()


def test_every_field_of_the_log_and_every_outcome_is_told() -> None:
    table = rows(section(RELAY, "What it tells"))
    fields = [name for row in table for name in names(row[0]) if not name.startswith("unbroken_")]
    lines: list[str] = []
    record = RequestRecord(id="cafe0001", started=0.0, elapsed=0.0, method="GET", path="/", outcome=Outcome.PASSED)
    AccessLog(lines.append, as_json=True).ended(record)
    assert fields == list(json.loads(lines[0]))
    (outcomes,) = [row[1] for row in table if row[0] == "`outcome`"]
    assert set(names(outcomes)) == set(Outcome)


def test_every_refusal_is_told() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "src/unbroken/relay").rglob("*.py"))
    refused = set(re.findall(r'(?:Rejection|GatewayError|_refuse)\(\s*(\d{3}),\s*"(\w+)"', sources))
    told = set()
    for row in rows(section(RELAY, "Limits")):
        if row[0].startswith("`--") and not names(row[2]):
            continue  # a connection that is reset is told no status
        if row[0].startswith("`--"):
            told |= {(row[2][:3], names(row[2])[0])}
        else:
            told |= {(status, code) for status in row[0].split(", ") for code in names(row[1])}
    told |= set(re.findall(r"(50\d) `(\w+)`", section(RELAY, "What a client sees")))
    told -= {("404", "method_not_allowed"), ("405", "not_found")}  # two in one row
    of_turns = {
        ("502", "stream_cut"),
        ("502", "unreachable"),
        ("502", "malformed_stream"),
        ("504", "first_output_timeout"),
    }
    assert told - of_turns == refused - {("502", "unexpected_response")}


# Other programs' configuration


@pytest.fixture
def fenced() -> dict[str, str]:
    """Blocks by language."""
    return dict(re.findall(r"^```(nginx|ini)\n(.*?)^```$", RELAY, re.MULTILINE | re.DOTALL))


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_a_turn_goes_through_nginx_as_it_is_told(fenced: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    env = environment(tmp_path, UNBROKEN_RELAY_TOKEN="t-42")
    with (
        Upstream(faults=[Fault("rst", "after_role")], answer=ScriptedAnswer(text="one two")) as upstream,
        running("--upstream", f"lab={upstream.url}", env=env) as relay,
    ):
        folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        server = f"listen 127.0.0.1:{port}; {fenced['nginx'].replace('127.0.0.1:8765', f'127.0.0.1:{relay.port}')}"
        conf = tmp_path / "nginx.conf"
        conf.write_text(
            f"daemon off; pid {tmp_path}/pid; error_log stderr; worker_processes 1; events {{}}\n"
            f"http {{ access_log off; client_body_temp_path {tmp_path}/body; {folders} server {{ {server} }} }}"
        )
        nginx = subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", str(conf)], stderr=subprocess.PIPE)
        try:
            wait_until_open(port)
            before = Running(f"http://127.0.0.1:{port}", relay.program)
            answered = before.chat(x_unbroken_token="t-42")
            assert (answered.status, answered.text) == (200, "one two")
            assert before.chat().status == 401
        finally:
            nginx.terminate()
            nginx.communicate()


def wait_until_open(port: int) -> None:
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
    raise AssertionError("nobody listens")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_one(fenced: dict[str, str], tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("unbroken"))
    unit = tmp_path / "unbroken.service"
    unit.write_text(fenced["ini"].replace("/usr/local/bin/unbroken", program))
    ran = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    (line,) = re.findall(r"^ExecStart=\S+ relay (.*)$", fenced["ini"], re.MULTILINE)
    assert relay.make_parser(click.Context(relay)).parse_args(line.split())[1] == []
    (patience,) = re.findall(r"^TimeoutStopSec=(\d+)$", fenced["ini"], re.MULTILINE)
    assert int(patience) > Settings(upstreams={}).grace


# The rule


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose heading begins with these cells."""
    found = re.search(rf"^\| {re.escape(first)} .*\|\n\|[-|]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    assert found, first
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def test_what_each_choice_does_is_told() -> None:
    page = section((ROOT / "docs" / "rule.md").read_text("utf-8"), "What each failure does")
    _, _, told = page.partition("### After output")
    by_row: dict[tuple[str, str], list[choices.Outcome]] = {}
    for cell in choices.CELLS:
        by_row.setdefault((cell.failure, cell.place), []).append(cell.outcome)
    assert table(told, "failure |  | by default") == [
        [choices.FAILURES[failure], choices.PLACES[place], *(outcome.value for outcome in outcomes)]
        for (failure, place), outcomes in by_row.items()
        if len(set(outcomes)) > 1
    ]
    alike = {
        failure
        for failure in choices.FAILURES
        if all(len(set(by_row[failure, place])) == 1 for place in choices.PLACES)
    }
    assert alike == {"will_not_pass", "unreadable", "caller", "cancelled"}, "the page says so in words"
    assert all(len(set(by_row[failure, "settled"])) == 1 for failure in choices.FAILURES)


def test_what_the_attempt_that_follows_does_is_told() -> None:
    page = section((ROOT / "docs" / "rule.md").read_text("utf-8"), "What each failure does")
    outcomes = {(cell.failure, cell.choice): cell.outcome for cell in choices.FOLLOWING}
    assert table(page, "failure | what can be resumed") == [
        [
            words,
            *(
                outcomes.get((failure, choice), choices.Outcome.NONE).value
                for choice in ("resume", "continue", "restart")
            ),
        ]
        for failure, words in choices.FOLLOWING_FAILURES.items()
    ]


def test_every_finish_reason_is_told() -> None:
    page = (ROOT / "docs" / "rule.md").read_text("utf-8")
    _, _, reasons = section(page, "What counts as an end").partition("### Finish reasons")
    table, _, failing = reasons.partition("Failing, in every dialect:")
    meanings = (FinishMeaning.WHOLE, FinishMeaning.LENGTH, FinishMeaning.FILTERED, FinishMeaning.STOPPED)
    told = {row[0].strip("`"): [set(names(cell)) for cell in row[1:]] for row in rows(table)}
    for dialect in DIALECTS:
        reasons_of = dialect.finish_reasons
        assert told[dialect.name] == [{name for name in reasons_of if reasons_of[name] is one} for one in meanings]
        failed = {name for name in reasons_of if reasons_of[name] is FinishMeaning.FAILED}
        assert set(names(failing.partition("###")[0])) == failed
