"""The upstream's handling of requests and connections, in any protocol."""

from __future__ import annotations

import time
from collections.abc import Sequence

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.background import Background, KeptResponses
from unbroken.lab.condition import Condition
from unbroken.lab.continuing import Continuation
from unbroken.lab.exchange import ServerExchange
from unbroken.lab.fault import Fault
from unbroken.lab.fault_queue import FaultQueue
from unbroken.lab.record import RecordedRequest
from unbroken.lab.routes import dialect_of, draft_response, speech_of
from unbroken.lab.script import compose, whole
from unbroken.lab.speech import OPENAI


class ServerState:
    """The state of an upstream: records requests, assigns the faults, and performs the responses.

    Args:
        condition: guards everything that is recorded.
        answer: the answer when nothing goes wrong.
        faults: the faults in order; None for no fault.
        continuation: how a text is continued; None for not at all.
        background: how responses are kept that are asked for with ``background``; None for not at all.
        generations_only: whether requests that are no generation calls take no fault.

    Attributes:
        condition: as above.
        requests: every request that was read whole, in order.
        pings: how many HTTP/2 PINGs clients have sent.
        faults: those that nobody has met yet.
    """

    def __init__(
        self,
        condition: Condition,
        answer: ScriptedAnswer,
        faults: Sequence[Fault | None],
        continuation: Continuation | None = None,
        background: Background | None = None,
        *,
        generations_only: bool = False,
    ) -> None:
        self.condition = condition
        self.requests: list[RecordedRequest] = []
        self.pings = 0
        self.faults = FaultQueue(faults)
        self._answer = answer
        self._continuation = continuation
        self._kept = KeptResponses(background) if background else None
        self._generations_only = generations_only

    def record(
        self,
        connection: int,
        http_version: str,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> RecordedRequest:
        """Record a request that was read whole, with the fault that it takes."""
        with self.condition.change():
            request = RecordedRequest(
                len(self.requests) + 1, connection, http_version, method, target, headers, body, time.monotonic()
            )
            if dialect_of(request) or not self._generations_only:
                request.fault = self.faults.take_for_request()
            self.requests.append(request)
        return request

    def count_ping(self) -> None:
        """Count an HTTP/2 PING of a client."""
        with self.condition.change():
            self.pings += 1

    async def answer(self, exchange: ServerExchange) -> None:
        """Perform the response to the exchange's request, with its fault."""
        request, fault = exchange.record, exchange.record.fault
        protocol = fault.needs(request.http_version) if fault else None
        if fault and protocol:
            message = f"The fault {fault.kind} needs {protocol}."
            steps = compose(whole(500, OPENAI.refusal(500, {"message": message, "type": "lab_misuse"})), None)
        else:
            draft = draft_response(request, self._answer, fault, self._continuation, self._kept)
            steps = compose(draft, fault, speech_of(request))
        await exchange.perform(steps)
