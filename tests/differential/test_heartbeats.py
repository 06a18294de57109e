"""The relay's heartbeats in the decoders of the real SDKs: they read the same with them and without."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from differential.bench import Bench
from differential.heartbeats import Beating, every_stream
from differential.streams import Case, Read, Stream
from real.parts import missing
from unbroken.core.dialects import DIALECTS, find_dialect

ROOT = Path(__file__).resolve().parents[2]
DECODE = Path(__file__).with_name("decode.js")
LIMIT = 120
STREAMS = list(every_stream())
WITHOUT_HEARTBEAT = {dialect.name for dialect in DIALECTS if not dialect.heartbeat}


def different(streams: Sequence[Beating], without: Sequence[Read], beaten: Sequence[Read]) -> list[str]:
    return [
        f"{stream.name}: {before} became {after}"
        for stream, before, after in zip(streams, without, beaten, strict=True)
        if before != after
    ]


def in_python(bench: Bench, streams: Sequence[Beating]) -> list[str]:
    def read(pieces: Sequence[Sequence[bytes]]) -> list[Read]:
        made = [Stream(tuple(bodies)) for bodies in pieces]
        asked = zip(streams, made, strict=True)
        found = bench.ask(
            [Case(stream.name, stream.dialect, {}, body, body) for stream, body in asked], ways=("plain",)
        )
        return [item.plain for item in found]

    return different(streams, read([item.events for item in streams]), read([item.pieces for item in streams]))


def in_node(streams: Sequence[Beating]) -> list[str]:
    modules = Path(os.environ.get("UNBROKEN_NODE_SDKS") or ROOT / ".node-sdks") / "node_modules"
    if not shutil.which("node") or not (modules / "openai").exists():
        missing("Node's SDKs are missing; `make .node-sdks` installs them")

    def read(pieces: Sequence[Sequence[bytes]]) -> list[Read]:
        bodies = [[base64.b64encode(piece).decode() for piece in body] for body in pieces]
        asked = [{"dialect": item.dialect, "pieces": body} for item, body in zip(streams, bodies, strict=True)]
        command = ["node", DECODE, modules]
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=LIMIT, check=True
        )
        return [Read(tuple(item["objects"]), item["error"]) for item in json.loads(done.stdout)]

    return different(streams, read([item.events for item in streams]), read([item.pieces for item in streams]))


def test_heartbeats_are_between_the_events_and_change_none() -> None:
    for stream in STREAMS:
        heartbeat = find_dialect(stream.dialect).heartbeat
        forms = {heartbeat, heartbeat.rstrip() + b"\n"}
        assert b"".join(piece for piece in stream.pieces if piece not in forms) == b"".join(stream.events)
        beats = sum(piece in forms for piece in stream.pieces)
        assert beats > 2 if stream.dialect not in WITHOUT_HEARTBEAT else not beats


@pytest.mark.xdist_group("bench")
def test_a_comment_block_behind_an_id_would_be_an_event(bench: Bench) -> None:
    """The control: the reason for the other form, openai-python #2722."""
    [stream] = [item for item in STREAMS if item.name == "openai-chat openai-plain with ids"]
    block = find_dialect(stream.dialect).heartbeat
    naive = dataclasses.replace(stream, pieces=(stream.events[0], block, *stream.events[1:]))
    assert in_python(bench, [naive])


@pytest.mark.xdist_group("bench")
def test_in_python_some(bench: Bench) -> None:
    assert in_python(bench, STREAMS[::9]) == []


@pytest.mark.slow
def test_in_python(bench: Bench) -> None:
    assert in_python(bench, STREAMS) == []


@pytest.mark.slow
def test_in_node() -> None:
    assert in_node(STREAMS) == []
