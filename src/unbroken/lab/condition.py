"""State that one thread changes and others wait on, without polling."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Condition:
    """A condition variable that wakes all waiting threads after every change of the state that it guards."""

    def __init__(self) -> None:
        self._condition = threading.Condition()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Guard one change of the state, then have every waiting predicate evaluated again."""
        with self._condition:
            yield
            self._condition.notify_all()

    def wait_for(self, predicate: Callable[[], object], timeout: float) -> bool:
        """Wait until `predicate` is true, for at most `timeout` seconds; return whether it became true."""
        with self._condition:
            return bool(self._condition.wait_for(predicate, timeout))
