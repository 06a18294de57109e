"""What servers have refused, so that they are not asked for it again."""

from __future__ import annotations

REMEMBERED = 1000
"""How many refusals are remembered."""


class RefusedBackgrounds:
    """The servers that have refused to let a response go on: they are not asked again.

    It is shared by the turns of a client, a transport or a relay.
    """

    def __init__(self) -> None:
        self._refused: dict[tuple[str, str], None] = {}

    def add(self, url: str, storage: str) -> None:
        """Remember a refusal.

        Args:
            url: where the call was made.
            storage: what it said of keeping the response.
        """
        self._refused[_server(url), storage] = None
        if len(self._refused) > REMEMBERED:
            del self._refused[next(iter(self._refused))]

    def has(self, url: str, storage: str) -> bool:
        """Return whether such a call was refused before; arguments as for :meth:`add`."""
        return (_server(url), storage) in self._refused


def _server(url: str) -> str:
    return url.partition("?")[0]
