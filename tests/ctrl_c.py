"""Ctrl-C for code that blocks the main thread."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable


def interrupted(run: Callable[[], object], when: Callable[[], object]) -> float:
    """Run until Ctrl-C comes; return when it was pressed, by ``time.monotonic``.

    A signal that comes just before a system call does not end that call. Nobody presses at that very moment; here it
    happens, and so it is pressed again.

    Args:
        run: what is interrupted; on the main thread.
        when: returns when it is time to press.
    """
    main = threading.get_ident()
    assert main == threading.main_thread().ident
    over = threading.Event()
    pressed: list[float] = []

    def press() -> None:
        assert when(), "it never came to that"
        while not over.is_set():
            pressed.append(time.monotonic())
            signal.pthread_kill(main, signal.SIGINT)
            over.wait(1)

    presser = threading.Thread(target=press)
    presser.start()
    try:
        run()
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("Ctrl-C did nothing")
    finally:
        over.set()
        presser.join()
    return pressed[-1]
