from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from differential.streams import Stream
from differential.upstream import ScriptedUpstream
from relay.serving import Served, settings_to
from servers.faces import FACES, POLICY, Ask, Said


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    with upstream.server:
        yield upstream


@pytest.fixture(scope="module")
def relay(upstream: ScriptedUpstream) -> Iterator[Served]:
    with Served(settings_to(upstream.server.url, policy=POLICY)) as relay:
        yield relay


Asking = Callable[..., tuple[Said, list[bytes]]]


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def asking(face: str, upstream: ScriptedUpstream, request: pytest.FixtureRequest) -> Asking:
    """``asking(dialect, request, *streams)``: what a face makes of them, and the bodies of its requests."""
    numbers = itertools.count()

    def ask(dialect: str, body: Mapping[str, Any], *streams: Stream) -> tuple[Said, list[bytes]]:
        case = f"{face}-{request.node.name.replace(' ', '_')}-{next(numbers)}"
        upstream.script(case, *streams)
        origin = f"{request.getfixturevalue('relay').origin}/lab" if face == "relay" else upstream.server.url
        said = FACES[face](Ask(dialect=dialect, request=body, origin=origin, case=case))
        return said, upstream.requests[case]

    return ask
