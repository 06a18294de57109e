"""The recorded streams of ``tests/corpora``, as objects."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from pathlib import Path
from typing import Any

from unbroken.core.dialect import Call, Dialect
from unbroken.core.http import Request

CORPORA = Path(__file__).parent.parent / "corpora"


@dataclasses.dataclass(frozen=True)
class Recording:
    """One fixture: what came over the wire, and what it means."""

    name: str
    body: bytes
    facts: dict[str, Any]

    @property
    def labels(self) -> list[str]:
        """One for each dispatched event."""
        return list(self.facts["events"])

    @property
    def expect(self) -> dict[str, Any]:
        return dict(self.facts["expect"])

    def call(self, dialect: Dialect, url: str) -> Call:
        """The call that the recording answers."""
        call = dialect.recognise(Request("POST", url, body=self.facts["request"].encode()))
        assert call is not None
        return call

    def pieces(self) -> list[bytes]:
        """The body as it arrived, where that was recorded."""
        sizes = self.facts.get("chunks", [len(self.body)])
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return [self.body[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def __str__(self) -> str:
        return self.name


@functools.cache
def recordings(folder: str, suffix: str = "sse") -> list[Recording]:
    """Every fixture of a folder."""
    paths = sorted((CORPORA / folder).glob("*.toml"))
    assert paths, "no fixtures: is the folder right?"
    return [
        Recording(path.stem, path.with_suffix(f".{suffix}").read_bytes(), tomllib.loads(path.read_text()))
        for path in paths
    ]
