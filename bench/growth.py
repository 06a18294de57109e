"""What one event costs by its size and by the size of the pieces it comes in: straight lines, or a defect.

    python bench/growth.py [--json]

The rule over a stream of one small event and one large ending (``response.completed``), as the driver feeds it. CPU
nanoseconds a byte of the thread, the least of three runs. A row that grows to the right is not linear.
"""

from __future__ import annotations

import json
import sys
import time

from unbroken.core.attempt import Attempt, Mode
from unbroken.core.dialect import Call, Generation
from unbroken.core.dialects.openai_responses import OPENAI_RESPONSES
from unbroken.core.failures import Phase
from unbroken.core.http import Head
from unbroken.core.policy import Policy

SIZES = [2**10, 2**14, 2**17, 2**20, 2**24]
PIECES = [1, 64, 2**10, 2**12, 2**16]
FIRST = b'data: {"type": "response.output_text.delta", "delta": "Hi"}\n\n'
LAST = b'data: {"type": "response.completed", "response": {"output": [{"type": "image", "result": "%s"}]}}\n\n'
HEAD = Head(200, ((b"content-type", b"text/event-stream"),))


def run(body: bytes, piece: int) -> None:
    """Feed a body to one attempt."""
    attempt = Attempt(1, Call(OPENAI_RESPONSES, Generation(streaming=True)), Policy(max_event=2**26), 0.0)
    attempt.open(HEAD, Mode.STREAM)
    view = memoryview(body)
    given = sum(len(attempt.data(bytes(view[at : at + piece]))) for at in range(0, len(body), piece))
    assert given == len(body)
    assert attempt.phase is Phase.COMPLETE


def nanoseconds_per_byte(size: int, piece: int) -> float:
    """The least of three runs; of one where it takes long."""
    body = FIRST + LAST % (b"QUJD" * (size // 4))
    spent = []
    for _ in range(3 if size // piece < 2**20 else 1):
        began = time.thread_time_ns()
        run(body, piece)
        spent.append((time.thread_time_ns() - began) / len(body))
    return min(spent)


def named(size: int) -> str:
    """A size with its unit."""
    return f"{size} B" if size < 2**10 else f"{size // 2**10} KiB" if size < 2**20 else f"{size // 2**20} MiB"


def main() -> None:
    """Print the table."""
    table = {named(piece): {named(size): nanoseconds_per_byte(size, piece) for size in SIZES} for piece in PIECES}
    if "--json" in sys.argv:
        print(json.dumps(table))
        return
    print("| ns a byte, pieces of | " + " | ".join(map(named, SIZES)) + " |")
    print("|---|" + "---|" * len(SIZES))
    for piece, row in table.items():
        print(f"| {piece} | " + " | ".join(f"{value:.2f}" for value in row.values()) + " |")


if __name__ == "__main__":
    main()
