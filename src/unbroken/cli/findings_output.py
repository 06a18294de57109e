"""Output of findings, for a person and for a program."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from unbroken.cli.exits import OutputError
from unbroken.cli.json_output import encoded
from unbroken.cli.output import Output
from unbroken.cli.terminal import harmless, plain
from unbroken.core.finding import Finding


def write_json(findings: Sequence[Finding], idle_limit: float | None, path: Any) -> None:
    """Write findings as one object on stdout.

    Args:
        findings: the findings.
        idle_limit: seconds of silence after which the path cuts, ``None`` if that is not known.
        path: what is known of the path.

    Raises:
        OutputError: stdout cannot be written.
    """
    write(encoded({"findings": findings, "idle_limit": idle_limit, "path": path}).decode())


def write(text: str) -> None:
    """Write text on stdout.

    Raises:
        OutputError: it cannot be written.
    """
    out = Output(sys.stdout)
    try:
        out.write(plain(text, out.encoding))
    except OSError as exc:
        raise OutputError(exc) from None


def finding_lines(findings: Sequence[Finding], faults: Collection[Finding], *, whole: bool = True) -> Iterator[str]:
    """Yield findings as lines: the sentence, and the next step below it.

    Args:
        findings: the findings.
        faults: those that say that something is wrong; the others are notes.
        whole: whether everything was looked at.
    """
    for finding in findings:
        yield f"{'✗' if finding in faults else '·'} {harmless(finding.text)}"
        if finding.next:
            yield f"  next: {harmless(finding.next)}"
    if not whole:
        yield "interrupted: this is what was known by then"
    elif not faults:
        yield "✓ nothing is wrong"
