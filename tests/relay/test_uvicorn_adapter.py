"""A uvicorn whose private parts are not those that the relay uses: refused, or only direct writes are left out."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from relay.serving import Call, Serve
from unbroken.cli import execute
from unbroken.errors import UsageError
from unbroken.lab import ScriptedAnswer, Upstream
from unbroken.relay import Relay, Settings
from unbroken.relay.server import make_server
from unbroken.relay.uvicorn_adapter import UVICORN, DirectWriter, LingeringTransport, check_uvicorn, writes_directly

SETTINGS = Settings(upstreams={})

GONE = [
    (HttpToolsProtocol, "on_header"),
    (HttpToolsProtocol, "_start_asgi_task"),
    (HttpToolsProtocol, "_unset_keepalive_if_required"),
    (RequestResponseCycle, "run_asgi"),
    (uvicorn.Server, "capture_signals"),
]


def test_the_one_that_is_installed_is_accepted() -> None:
    check_uvicorn()


@pytest.mark.parametrize("version", [f"{UVICORN}.0", f"{UVICORN}.17"])
def test_every_patch_of_the_minor_version_is_accepted(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn, "__version__", version)
    check_uvicorn()


@pytest.mark.parametrize("version", ["0.53.9", "0.55.0", "1.54.0", f"{UVICORN}9.0"])
def test_another_minor_version_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn, "__version__", version)
    with pytest.raises(UsageError, match=rf"works with uvicorn {UVICORN}, not {version}: pip install 'uvicorn~="):
        make_server(Relay(SETTINGS), SETTINGS)


@pytest.mark.parametrize(("kind", "name"), GONE, ids=lambda part: getattr(part, "__name__", part))
def test_a_part_that_is_gone_is_named(kind: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(kind, name)
    with pytest.raises(UsageError, match=rf"\({kind.__name__}\.{name} is gone\)"):
        check_uvicorn()


def test_an_attribute_that_an_instance_no_longer_gets_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(self: uvicorn.Server, config: uvicorn.Config) -> None:
        self.config = config

    monkeypatch.setattr(uvicorn.Server, "__init__", without)
    with pytest.raises(UsageError, match=r"\(Server\.should_exit is gone\)"):
        check_uvicorn()


def test_the_command_line_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(uvicorn, "__version__", "0.55.0")
    assert execute(["relay", "--port", "0"]) == 2
    err = capsys.readouterr().err
    assert f"the relay works with uvicorn {UVICORN}, not 0.55.0" in err
    assert "listening on" not in err


def test_writes_to_the_one_that_is_installed_are_direct() -> None:
    assert writes_directly()


def framed_otherwise(self: RequestResponseCycle, message: Any) -> Any:
    async def send() -> None:
        await SEND(self, message)
        self.transport.write(b"; and more")

    return send()


def started_by_another_name(self: RequestResponseCycle, message: Any) -> Any:
    async def send() -> None:
        await SEND(self, message)
        del self.chunked_encoding

    return send()


async def waiting(self: RequestResponseCycle, message: Any) -> None:
    await SEND(self, message)
    await asyncio.sleep(0)


SEND = RequestResponseCycle.send


@pytest.mark.parametrize("send", [framed_otherwise, started_by_another_name, waiting])
def test_where_send_does_something_else_they_are_left_out(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestResponseCycle, "send", send)
    assert not writes_directly()


@pytest.mark.parametrize(
    ("plain_asgi", "direct"), [(False, True), (True, False)], ids=["with them", "with ASGI's send alone"]
)
def test_a_turn_is_whole_either_way(
    serve: Serve, lab: Upstream, call: Call, plain_asgi: bool, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(DirectWriter, "write", lambda self, data: (written.append(data), WRITE(self, data)))
    lab.answer = ScriptedAnswer(text=["word "] * 2000)
    served = serve(lab.url, plain_asgi=plain_asgi)
    answer = call(served).ask_json("/v1/chat/completions", {"model": "m", "stream": True, "messages": []})
    assert answer.whole
    assert answer.body == lab.requests[0].sent
    assert bool(written) is direct


WRITE = DirectWriter.write


class Wire:
    """A transport that keeps what is written, and what is done besides."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("close")
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


class TestTheHeadOfAResponse:
    """It goes out in one packet with what follows in the same round of the event loop, and alone if nothing does."""

    def in_a_loop(self, script: Callable[[LingeringTransport], None]) -> list[Any]:
        wire: Any = Wire()
        protocol: Any = types.SimpleNamespace(is_aborted=False, is_answered_early=False)

        async def run() -> None:
            script(LingeringTransport(wire, protocol))
            await asyncio.sleep(0)

        asyncio.run(run())
        return list(wire.done)

    def test_with_an_event(self) -> None:
        def script(transport: LingeringTransport) -> None:
            transport.hold_head()
            for data in (b"head ", b"event ", b"another"):
                transport.write(data)

        assert self.in_a_loop(script) == [b"head event ", b"another"]

    def test_alone(self) -> None:
        def script(transport: LingeringTransport) -> None:
            transport.hold_head()
            transport.write(b"head")

        assert self.in_a_loop(script) == [b"head"]

    def test_before_the_connection_is_closed(self) -> None:
        def script(transport: LingeringTransport) -> None:
            transport.hold_head()
            transport.write(b"head")
            transport.close()

        assert self.in_a_loop(script) == [b"head", "close"]

    def test_not_once_the_connection_is_lost(self) -> None:
        def script(transport: LingeringTransport) -> None:
            transport.hold_head()
            transport.write(b"head")
            cast(Any, transport)._transport.is_closed = True

        assert self.in_a_loop(script) == []

    def test_of_each_response_on_a_connection(self) -> None:
        def script(transport: LingeringTransport) -> None:
            for number in (b"1", b"2"):
                transport.hold_head()
                transport.write(b"head " + number)
                transport.write(b" end")

        assert self.in_a_loop(script) == [b"head 1 end", b"head 2 end"]
