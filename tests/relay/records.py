"""Records of turns as the recorder and its observers are given them, and metrics as they are read back."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from unbroken.core.failures import Phase
from unbroken.core.report import AttemptReport
from unbroken.relay.recorder import Outcome, RequestRecord

STARTED = 1_800_000_000.0


def answer(number: int = 1, **fields: Any) -> AttemptReport:
    """The attempt that answered."""
    known = {"output_after": 0.5, "elapsed": 2.0, "status": 200, "billed": "yes"}
    return AttemptReport(number=number, phase=Phase.COMPLETE, **{**known, **fields})


def cut(number: int = 1, silent: float = 60.0, **fields: Any) -> AttemptReport:
    """An attempt that was cut while the model thought."""
    known = {"phase": Phase.PRELUDE, "failure": "reset", "silent": silent, "elapsed": silent + 1, "status": 200}
    return AttemptReport(number=number, **{**known, **fields})


def turn(*attempts: AttemptReport, **fields: Any) -> RequestRecord:
    """A turn with these attempts, one whole answer where none are given."""
    known = {
        "id": "cafe0001",
        "started": STARTED,
        "elapsed": 5.0,
        "method": "POST",
        "path": "/v1/chat/completions",
        "upstream": "lab",
        "dialect": "openai-chat",
        "streaming": True,
        "status": 200,
        "outcome": Outcome.ANSWERED,
    }
    return RequestRecord(attempts=attempts or (answer(),), **{**known, **fields})


def other(**fields: Any) -> RequestRecord:
    """A request that was no turn; it was passed through where nothing else is said."""
    known = {
        "id": "cafe0002",
        "started": STARTED,
        "elapsed": 1.0,
        "method": "GET",
        "path": "/v1/models",
        "upstream": "lab",
        "status": 200,
        "outcome": Outcome.PASSED,
    }
    return RequestRecord(**{**known, **fields})


def series(text: bytes | str) -> dict[str, float]:
    """Metrics in Prometheus' text format, by name and labels as in ``name{a=1,b=2}``, without buckets."""
    decoded = text if isinstance(text, str) else text.decode()
    return {
        _named(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(decoded)
        for sample in family.samples
        if "le" not in sample.labels
    }


def buckets(text: bytes | str, name: str, **labels: str) -> dict[str, float]:
    """The buckets of one histogram by their upper bounds, each with those below it."""
    decoded = text if isinstance(text, str) else text.decode()
    return {
        sample.labels["le"]: sample.value
        for family in text_string_to_metric_families(decoded)
        for sample in family.samples
        if sample.name == f"{name}_bucket" and labels.items() <= sample.labels.items()
    }


def _named(name: str, labels: dict[str, str]) -> str:
    inside = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name
