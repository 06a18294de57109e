"""What an idle test found, as data: each silent connection, how long it stood, and how it ended."""

from __future__ import annotations

import enum
import statistics

import msgspec


class Keeping(enum.StrEnum):
    """What is done to keep a silent connection."""

    NOTHING = "nothing"
    TCP_KEEPALIVE = "TCP keepalive"
    PING = "PING"
    COMMENTS = "SSE comments"


class End(enum.StrEnum):
    """How a silent connection ended."""

    KEPT = "kept"
    FIN = "FIN"
    RST = "RST"
    SILENCE = "silence"
    """Nothing came any more, although something was sent: what stands between has forgotten the connection."""
    GOAWAY = "GOAWAY"
    CLOSE_NOTIFY = "close_notify"
    ANSWER_ENDED = "end of the answer"
    """The answer alone was ended, or cut, by something that reads HTTP."""
    UNREACHED = "not reached"
    OPEN = "open"
    """The test was interrupted before it ended."""


BARE = frozenset({End.FIN, End.RST, End.SILENCE})
"""Ends that speak of the path. GOAWAY and close_notify are said inside TLS, by the far end or by what reads TLS."""

POLITE = frozenset({End.GOAWAY, End.CLOSE_NOTIFY})


class SilentConnection(msgspec.Struct):
    """One silent connection.

    Attributes:
        keeping: what was done to keep it.
        every: seconds between two of those, 0 for nothing.
        end: how it ended.
        seconds: how long it had been silent by then; for a kept one, how long it was watched.
        detail: more about the end, for a person.
    """

    keeping: Keeping
    every: float = 0.0
    end: End = End.OPEN
    seconds: float = 0.0
    detail: str = ""


class FarEndKind(enum.StrEnum):
    """Where silent connections lead."""

    ECHO = "echo"
    HERE = "here"
    PROVIDER = "provider"
    DIRECT = "direct"
    """The provider, without the proxy: a comparison."""


class SilenceTrial(msgspec.Struct, kw_only=True):
    """Silent connections to one far end.

    Attributes:
        kind: which far end.
        host: its host and port.
        proxy: the URL of the proxy, ``""`` without one.
        http_version: what is spoken there.
        connections: the connections.
    """

    kind: FarEndKind
    host: str
    proxy: str = ""
    http_version: str = ""
    connections: list[SilentConnection] = msgspec.field(default_factory=list)

    def of(self, keeping: Keeping) -> list[SilentConnection]:
        """Return the connections that were kept in one way, as far as they were reached."""
        return [one for one in self.connections if one.keeping is keeping and one.end is not End.UNREACHED]

    @property
    def silent(self) -> list[SilentConnection]:
        """The connections for which nothing was done."""
        return self.of(Keeping.NOTHING)

    @property
    def cut(self) -> list[SilentConnection]:
        """Those for which nothing was done and that the path cut, the first one first."""
        return sorted((one for one in self.silent if self.is_cut(one)), key=lambda one: one.seconds)

    def is_cut(self, connection: SilentConnection) -> bool:
        """Return whether the path ended a connection: a server of ours ends none, a provider may."""
        ours = self.kind in (FarEndKind.ECHO, FarEndKind.HERE)
        return connection.end in BARE or (ours and connection.end in (*POLITE, End.ANSWER_ENDED))

    @property
    def limit(self) -> float | None:
        """Seconds of silence after which the path cuts, ``None`` if it does not.

        A connection that carried nothing any more may have been cut long before: it counts where no other was cut.
        """
        noticed = [one.seconds for one in self.cut if one.end is not End.SILENCE]
        if noticed:
            return statistics.median_low(noticed)
        return self.cut[0].seconds if self.cut else None

    @property
    def stood(self) -> float:
        """The longest silence in seconds after which a connection, for which nothing was done, was seen to live."""
        return max((one.seconds for one in self.silent if one.end is End.KEPT), default=0.0)

    @property
    def reached(self) -> bool:
        """Whether any connection stood."""
        return any(one.end is not End.UNREACHED for one in self.connections)


class IdleReport(msgspec.Struct, kw_only=True):
    """An idle test.

    Attributes:
        trials: by far end.
        intercepted_by: the authority that signs for a server on this machine in place of ours, and for the provider:
            what reads TLS on the way; ``""`` if none does.
        answers_held_by: the URL of a proxy that hands on an answer once it is whole, ``""`` if none does.
        skipped: far ends that were not tried, or could not be reached, each with the reason, in a sentence.
    """

    trials: list[SilenceTrial] = msgspec.field(default_factory=list)
    intercepted_by: str = ""
    answers_held_by: str = ""
    skipped: list[str] = msgspec.field(default_factory=list)
