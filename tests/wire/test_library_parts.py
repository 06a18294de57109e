"""Undocumented parts of other libraries: which are used."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import unbroken

SOURCE = Path(unbroken.__file__).parent

USED = {
    ("relay/uvicorn_adapter.py", "_start_asgi_task"): "check_uvicorn",
    ("relay/uvicorn_adapter.py", "_unset_keepalive_if_required"): "check_uvicorn",
    ("transports/wrapping.py", "_client"): "wrap refuses a client without it",
}
"""Names with an underscore that are used of objects of other libraries, and what fails if they are gone."""

STANDARD = {"os._exit", "zlib._Decompress"}
"""Of the standard library: the first is documented, the second a type in annotations."""

DOCUMENTED = {"_replace"}
"""Methods of named tuples."""


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


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
