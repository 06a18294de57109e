"""Undocumented parts of other libraries: which are used, that they are there, and what happens if one is gone."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import h2.events
import h11._readers
import httpcore2
import httpcore2._async.http_proxy
import httpcore2._async.socks_proxy
import httpcore2._sync.http2
import httpcore2._sync.http11
import httpcore2._sync.http_proxy
import httpcore2._sync.socks_proxy
import pytest

import unbroken
from unbroken.cli import execute
from unbroken.errors import UsageError
from unbroken.lab import Upstream
from unbroken.wire import library_parts
from unbroken.wire.http import HttpWire
from unbroken.wire.library_parts import ATTRIBUTES, HTTPCORE2, check_httpcore2
from unbroken.wire.requests import is_idle

SOURCE = Path(unbroken.__file__).parent

USED = {
    ("core/http.py", "_replace"): "documented: collections.namedtuple",
    ("relay/uvicorn_adapter.py", "_start_asgi_task"): "check_uvicorn",
    ("relay/uvicorn_adapter.py", "_unset_keepalive_if_required"): "check_uvicorn",
    ("transports/wrapping.py", "_client"): "wrap refuses a client without it",
    ("wire/requests.py", "_connection"): "check_httpcore2",
    ("wire/requests.py", "_h11_state"): "check_httpcore2",
    ("wire/requests.py", "_h2_state"): "check_httpcore2",
}
"""Names with an underscore that are used of objects of other libraries, and what fails if they are gone."""

STANDARD = {"os._exit", "zlib._Decompress"}
"""Of the standard library: the first is documented, the second a type in annotations."""


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What a module uses with an underscore in front: the object, as it is written, and the name."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value, name) if _is_private(name):
                yield ast.unparse(value), name
            case ast.Call(ast.Name("getattr" | "hasattr"), [value, ast.Constant(str(name)), *_]) if _is_private(name):
                yield ast.unparse(value), name
            case ast.ImportFrom(str(module)) if module != "__future__":
                for name in (*module.split("."), *(alias.name for alias in node.names)):
                    if _is_private(name):
                        yield module, name


@pytest.fixture(scope="module")
def found() -> set[tuple[str, str]]:
    """Uses of names that no class of ours defines."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}
    ours = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                ours.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                ours.add(node.attr)
            elif isinstance(node, (ast.Name, ast.arg)):
                ours.add(getattr(node, "id", "") or getattr(node, "arg", ""))
    uses = set()
    for path, tree in trees.items():
        for value, name in private(tree):
            is_own = value in ("self", "cls", "super()") or value.startswith("self.")
            if f"{value}.{name}" not in STANDARD and not (is_own and name in ours - {"_start_asgi_task"}):
                uses.add((path.relative_to(SOURCE).as_posix(), name))
    return uses


def test_every_private_part_of_another_library_is_known(found: set[tuple[str, str]]) -> None:
    assert found == set(USED)


# They are there


def test_httpcore2_has_what_is_used() -> None:
    check_httpcore2.cache_clear()
    check_httpcore2()
    assert httpcore2.__version__.startswith(f"{HTTPCORE2}.")


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("name", ["TunnelHTTPConnection", "ForwardHTTPConnection", "Socks5Connection"])
def test_connections_through_a_proxy_have_an_inner_one(kind: str, name: str) -> None:
    module = "socks_proxy" if name.startswith("Socks") else "http_proxy"
    folder: ModuleType = getattr(httpcore2, f"_{kind}")
    connection = getattr(getattr(folder, module), name if kind == "sync" else f"Async{name}")
    assert "_connection" in connection.__init__.__code__.co_names


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (httpcore2._sync.http11, "Server disconnected without sending a response."),
        (httpcore2._sync.http2, "Server disconnected"),
        (httpcore2._sync.http2, "raise RemoteProtocolError(event)"),
        (httpcore2._sync.http_proxy, 'f"{connect_response.status} {reason_str}"'),
        (httpcore2._sync.socks_proxy, "Connection not allowed by ruleset"),
        (httpcore2._sync.socks_proxy, "Command not supported"),
        (httpcore2._sync.socks_proxy, "Invalid username/password"),
        (httpcore2._sync.socks_proxy, 'f"Requested {requested} from proxy server, but got {responded}."'),
        (httpcore2._sync.socks_proxy, 'f"Proxy Server could not connect: {reply_code}."'),
        (h11._readers, "peer closed connection without sending complete message body"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_errors_say_what_the_mapping_reads(module: ModuleType, words: str) -> None:
    assert words in inspect.getsource(module)


def test_a_reset_stream_of_h2_has_its_code() -> None:
    assert "error_code" in inspect.signature(h2.events.StreamReset).parameters


# One is gone


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """httpcore2 in another version, whose connections keep their parser elsewhere."""
    changed = {
        kind: names | {"_elsewhere"} if "HTTP11" in kind.__name__ else names for kind, names in ATTRIBUTES.items()
    }
    monkeypatch.setattr(library_parts, "ATTRIBUTES", changed)
    check_httpcore2.cache_clear()
    yield "HTTP11Connection._elsewhere, AsyncHTTP11Connection._elsewhere"
    check_httpcore2.cache_clear()


def test_a_wire_is_not_made_without_them(without: str) -> None:
    with pytest.raises(UsageError, match="this httpcore2 lacks what is used of it") as caught:
        HttpWire()
    assert without in str(caught.value)
    assert f"pip install 'httpcore2~={HTTPCORE2}.0'" in str(caught.value)


def test_the_command_line_says_so(without: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", "--base-url", "http://127.0.0.1:1/v1", "hi"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unbroken: this httpcore2 lacks what is used of it")


def test_a_trace_of_another_name_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_parts, "TRACED", "send_head")
    check_httpcore2.cache_clear()
    with pytest.raises(UsageError, match="HTTP2Connection's trace of send_head"):
        check_httpcore2()
    check_httpcore2.cache_clear()


class Connection(SimpleNamespace):
    def is_idle(self) -> bool:
        return True


PARSER = SimpleNamespace(trailing_data=(b"", False))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"_h11_state": PARSER}, True),
        ({"_h11_state": SimpleNamespace(trailing_data=(b"x", False))}, False),
        ({"_h2_state": None}, True),
        ({"_connection": Connection(_h11_state=PARSER)}, True),
        ({"_connection": Connection(_connection=Connection(_h2_state=None))}, True),
        ({}, False),
        ({"_parser": PARSER}, False),
        ({"_connection": None}, False),
        ({"_inner": Connection(_h11_state=PARSER)}, False),
    ],
    ids=str,
)
def test_a_connection_whose_state_is_not_known_is_not_used_again(parts: dict[str, Any], expected: bool) -> None:
    assert is_idle([Connection(**parts)]) is expected


def test_a_connection_is_used_again_as_long_as_they_are_there() -> None:
    with Upstream() as upstream, unbroken.Client(base_url=upstream.url, proxy="") as client:
        for _ in range(2):
            with client.stream("hi") as turn:
                turn.read()
        assert upstream.connections == 1
