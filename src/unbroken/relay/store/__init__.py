"""Stores of turns that outlive their client: in this process, or in Redis or Valkey."""

from __future__ import annotations

from collections.abc import Callable

from unbroken.relay.store.contract import LEASE, Store

MEMORY = "memory://"


def make_store(url: str, keep: float, max_kept: int, on_problem: Callable[[str], None], lease: float = LEASE) -> Store:
    """Return the store at a URL, not yet opened.

    Args:
        url: ``memory://``, ``redis://``, ``rediss://`` or ``unix://``.
        keep: seconds for which a turn is kept after its end.
        max_kept: how many bytes a store in this process keeps.
        on_problem: called with what is wrong with the store, for a person, and with ``""`` once nothing is.
        lease: seconds after which the writer of a turn counts as dead if it does not hold its lease for longer.

    Raises:
        UsageError: the URL cannot be read.
        MissingExtra: what the store needs is not installed.
    """
    if url == MEMORY:
        from unbroken.relay.store.memory import MemoryStore

        return MemoryStore(keep, max_kept)
    from unbroken.relay.store.redis_store import RedisStore

    return RedisStore(url, keep, on_problem=on_problem, lease=lease)
