"""Connections to Redis or Valkey, and what their failures mean in words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from unbroken.errors import MissingExtra, UsageError
from unbroken.relay.store.contract import StoreError

try:
    from redis.asyncio import ConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as ConnectionFailed
    from redis.exceptions import NoScriptError, RedisError, ResponseError
except ImportError as exc:
    raise MissingExtra("this store needs", "redis", exc) from None

OLDEST = (6, 0)
"""The oldest version of the server whose commands are used."""

_WORDS = {
    "NOAUTH": "it asks for a password",
    "WRONGPASS": "it refuses the password",
    "NOPERM": "its user may not do what is needed",
    "OOM": "it is full (maxmemory)",
    "READONLY": "it is a replica, which takes no writes",
    "MISCONF": "it takes no writes, because it cannot save them",
    "LOADING": "it is still loading",
    "BUSY": "it is busy with a script",
    "MASTERDOWN": "its master is away",
    "CLUSTERDOWN": "its cluster is down",
    "MOVED": "it is a cluster, which is not supported",
    "CROSSSLOT": "it is a cluster, which is not supported",
    "NOSCRIPT": "it was started anew",
}
"""What an error's first word means. All of these may pass, or concern every turn alike."""

Command = tuple[Any, ...]
"""A command and its arguments."""

EVAL = "EVAL"
"""Stands for a script by its text, which is sent once."""


class Garbage(Exception):
    """The server refuses one command: what is kept under a key is not what it should be."""


class Link:
    """One connection. What its users ask for at the same time is sent in one go.

    Args:
        url: the server's.
        connect_within: seconds within which a connection must be made.
        answer_within: seconds within which commands must be answered; ``None`` where they block.
    """

    def __init__(self, url: str, connect_within: float, answer_within: float | None) -> None:
        self._scripts: dict[str, str] = {}
        self._waiting: list[tuple[Sequence[Command], asyncio.Future[list[Any]]]] = []
        self._runner: asyncio.Task[None] | None = None
        try:
            pool = ConnectionPool.from_url(
                url,
                max_connections=1,
                protocol=2,
                socket_timeout=answer_within,
                socket_connect_timeout=connect_within,
                retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionFailed,)),  # one that was idle may be stale
            )
            self._client: Any = Redis(connection_pool=pool)
        except (ValueError, RedisError):  # its message may quote the password
            raise UsageError("the store's URL cannot be read") from None

    async def call(self, *command: Any) -> Any:
        """Run a command; return what came of it.

        Raises:
            StoreError: it failed.
            Garbage: the server refused it, because of what is kept under its keys.
        """
        return await self._only(command)

    async def run(self, script: str, keys: Sequence[str], *args: Any) -> Any:
        """Run a script; otherwise as :meth:`call`."""
        return await self._only((EVAL, script, len(keys), *keys, *args))

    async def run_all(self, calls: Sequence[tuple[str, Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Run scripts, in this order; return what came of each, :class:`Garbage` included.

        Raises:
            StoreError: one of them failed; those before it and behind it may have been run.
        """
        return await self._send([(EVAL, script, len(keys), *keys, *args) for script, keys, args in calls])

    async def aclose(self) -> None:
        """Close the connection."""
        if self._runner:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose(close_connection_pool=True)

    async def _only(self, command: Command) -> Any:
        (came,) = await self._send([command])
        if isinstance(came, Garbage):
            raise came
        return came

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        came: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, came))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return [_judged(one) for one in await came]

    async def _run(self) -> None:
        """Send what waits, until nothing does."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                answers = iter(await self._execute([command for commands, _ in batch for command in commands]))
            except StoreError as exc:
                for _, came in batch:
                    if not came.done():
                        came.set_exception(StoreError(str(exc)))
                continue
            for commands, came in batch:
                answered = [next(answers) for _ in commands]
                if not came.done():  # whoever asked may have gone
                    came.set_result(answered)

    async def _execute(self, commands: Sequence[Command]) -> list[Any]:
        try:
            answers = await self._execute_once(commands)
            if any(isinstance(answer, NoScriptError) for answer in answers):  # the server was started anew
                self._scripts.clear()
                answers = await self._execute_once(commands)
        except TimeoutError:
            raise StoreError("it does not answer") from None
        except RedisError as exc:
            raise StoreError(_failure(exc)) from None
        except OSError as exc:
            raise StoreError(f"it cannot be reached: {exc.strerror or 'the connection failed'}") from None
        return answers

    async def _execute_once(self, commands: Sequence[Command]) -> list[Any]:
        for script in {command[1] for command in commands if command[0] is EVAL} - self._scripts.keys():
            self._scripts[script] = await self._client.script_load(script)
        pipeline = self._client.pipeline(transaction=False)
        for name, *args in commands:
            if name is EVAL:
                pipeline.execute_command("EVALSHA", self._scripts[args[0]], *args[1:])
            else:
                pipeline.execute_command(name, *args)
        try:
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
            return answers
        finally:
            await pipeline.reset()


async def check_server(link: Link) -> None:
    """Refuse a server that is too old, or that is not what its URL says.

    Raises:
        StoreError: it is refused, or does not answer.
    """
    info = await link.call("INFO", "server")
    version = info.get("redis_version") if isinstance(info, dict) else None
    try:
        numbers = tuple(int(part) for part in str(version).split(".")[:2])
    except ValueError:
        raise StoreError("it does not say which version of Redis or Valkey it is") from None
    if numbers < OLDEST:
        raise StoreError(f"it is Redis {version}; 6.0 or later is needed")


def check_url(url: str) -> None:
    """Refuse a URL at which no server can be.

    Raises:
        UsageError: the message quotes no credentials.
    """
    try:
        parts = urlsplit(url)
        has_place = parts.path.strip("/") if parts.scheme == "unix" else parts.hostname
        _ = parts.port
    except ValueError:
        raise UsageError("the store's URL cannot be read") from None
    if parts.scheme not in ("redis", "rediss", "unix") or not has_place:
        raise UsageError("a store is memory://, redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH")


def _judged(came: Any) -> Any:
    """Return an answer; raise the error that it is, unless that concerns one key alone.

    Raises:
        StoreError: the server cannot be used.
    """
    if isinstance(came, ResponseError) and _word(came) not in _WORDS:
        return Garbage(_word(came))
    if isinstance(came, RedisError):
        raise StoreError(_failure(came))
    return came


def _word(error: Exception) -> str:
    """Return the first word of an error, by which it is known. Clients of Redis take it off where they know it."""
    by_type = {
        "ConnectionError": "WRONGPASS" if "invalid username-password" in str(error) else "",
        "AuthenticationError": "NOAUTH" if "required" in str(error) else "WRONGPASS",
        "AuthenticationWrongNumberOfArgsError": "WRONGPASS",
        "NoPermissionError": "NOPERM",
        "OutOfMemoryError": "OOM",
        "ReadOnlyError": "READONLY",
        "BusyLoadingError": "LOADING",
        "NoScriptError": "NOSCRIPT",
        "MovedError": "MOVED",
        "MasterDownError": "MASTERDOWN",
        "ClusterDownError": "CLUSTERDOWN",
        "ClusterCrossSlotError": "CROSSSLOT",
    }
    text = str(error)
    first = text.partition(" ")[0].rstrip(":")
    if first in _WORDS:
        return first
    if known := by_type.get(type(error).__name__):
        return known
    # In a script, the word of the command that failed stands further behind.
    return next((word for word in _WORDS if f" {word} " in f" {text} " or f"-{word} " in text), first[:40])


def _failure(error: RedisError) -> str:
    name, text = type(error).__name__, str(error)
    if word := _WORDS.get(_word(error)):
        return word
    if name == "TimeoutError" or "timeout" in text.lower():
        return "it does not answer"
    if name in ("InvalidResponse", "ProtocolError") or "Protocol Error" in text:
        return "it does not speak Redis' protocol"
    if name == "ConnectionError":
        return "it cannot be reached, or ended the connection"
    return f"it fails ({name})"
