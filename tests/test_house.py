"""The house rules: one home for each idea, the field's words, generated code that is fresh."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from unbroken.core.dialects import DIALECTS

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "unbroken"
MODULES = sorted(SOURCE.rglob("*.py"))

PRIVATE_WORDS = re.compile(
    r"(?:\b|_)(?:voices?|pulse|inbound|passage|trouble|asker|asked|forms?|wording|stage|again|observe|board|ledger)(?:\b|_)"
    r"|\bAgain\b",
    re.IGNORECASE,
)
"""Words that meant something to their author alone; the field has words of its own for each."""

ALLOWED = {"origin_form", "Inbound"}
"""The origin form of a request target (RFC 9112); the frames of HTTP/2 that come in."""


def names(tree: ast.AST) -> Iterator[str]:
    """The names that a module defines: classes, functions, arguments and variables."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in MODULES}


def test_one_class_name_has_one_meaning(trees: dict[Path, ast.Module]) -> None:
    homes = defaultdict(list)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(str(path.relative_to(SOURCE)))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_no_private_word_names_anything(trees: dict[Path, ast.Module]) -> None:
    found = {
        f"{path.relative_to(SOURCE)}: {name}"
        for path, tree in trees.items()
        for name in (path.stem, *names(tree))
        if PRIVATE_WORDS.search(name) and name not in ALLOWED
    }
    assert found == set()


@pytest.mark.parametrize("face", ["client", "transports", "relay", "doctor", "cli"])
def test_a_face_knows_no_dialect_by_name(face: str) -> None:
    quoted = re.compile("|".join(f"[\"'`]{re.escape(dialect.name)}[\"'`]" for dialect in DIALECTS))
    packages = re.compile(
        r"core\.dialects\.(?!common)\w+ import|core\.dialects import [A-Z_]*(?:OPENAI|ANTHROPIC|GEMINI|INTERACTIONS)"
    )
    for path in (SOURCE / face).rglob("*.py"):
        text = path.read_text()
        assert not quoted.search(text), path
        assert not packages.search(text), path


QUESTIONS = {
    "Where is DeepSeek's `: keep-alive` comment ignored?": ("core/sse.py", "comments"),
    "Where is a 429 retried?": ("core/statuses.py", "429"),
    "Where does the relay answer 502?": ("relay/errors.py", "502"),
    "What does Anthropic's heartbeat look like?": ("core/dialects/anthropic_messages/__init__.py", '{"type": "ping"}'),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_leads_to_one_file(question: str) -> None:
    file, evidence = QUESTIONS[question]
    rows = [line for line in (ROOT / "docs" / "architecture.md").read_text().splitlines() if question in line]
    assert rows == [f"| {question} | `{file}` |"]
    assert evidence in (SOURCE / file).read_text().lower()


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    for name in re.findall(r"`((?:core|wire|drivers|journal|client|transports|relay|doctor|cli|lab)/[\w/.]*)`", text):
        assert (SOURCE / name).exists(), name
    for name in re.findall(r"`((?:tests|tools|docs|\.github)/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name


def test_every_dialect_has_the_same_files() -> None:
    usual = {"__init__.py", "request.py", "rule.py", "decode.py", "build.py", "finish_reasons.py"}
    for dialect in DIALECTS:
        package = SOURCE / "core" / "dialects" / dialect.name.replace("-", "_")
        assert usual <= {path.name for path in package.glob("*.py")}, package


def test_the_blocking_twins_are_fresh() -> None:
    run = subprocess.run(
        [sys.executable, "tools/unasync.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout


def test_every_seeded_fault_can_still_be_put_in() -> None:
    command = [sys.executable, "tools/seed_faults.py", "--check"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
