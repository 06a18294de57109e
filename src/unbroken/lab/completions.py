"""OpenAI's legacy completions, from the server's side: text, and reasoning in a field beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.chat import DONE
from unbroken.lab.dialect import COMMENT, CREATED, Pieces
from unbroken.lab.record import RecordedRequest
from unbroken.lab.speech import OpenAISpeech, sse


class Completions(OpenAISpeech):
    """The dialect; see :class:`unbroken.lab.dialect.ServerDialect`. It has no prelude and no tools."""

    heartbeat = COMMENT
    trace_header = "x-request-id"

    def answers(self, path: str) -> bool:
        """See :meth:`unbroken.lab.dialect.ServerDialect.answers`."""
        return path.endswith("/completions") and not path.endswith("/chat/completions")

    def streams(self, request: RecordedRequest, call: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """See :meth:`unbroken.lab.dialect.ServerDialect.streams`."""
        return call.get("stream") is True

    def pieces(self, answer: ScriptedAnswer, number: int) -> Pieces:
        """See :meth:`unbroken.lab.dialect.ServerDialect.pieces`."""
        usage = {**_completion(answer, number), "choices": [], "usage": answer.usage}
        return Pieces(
            b"",
            [sse(_completion(answer, number, reasoning=token)) for token in answer.reasoning],
            [sse(_completion(answer, number, token)) for token in answer.tokens],
            sse(_completion(answer, number, "", answer.finish_reason)),
            b"" if answer.usage is None else sse(usage),
            DONE if answer.done else b"",
        )

    def whole(self, answer: ScriptedAnswer, number: int) -> bytes:
        """See :meth:`unbroken.lab.dialect.ServerDialect.whole`."""
        reasoning = "".join(answer.reasoning)
        completion = _completion(answer, number, "".join(answer.tokens), answer.finish_reason, reasoning=reasoning)
        usage = {} if answer.usage is None else {"usage": dict(answer.usage)}
        return json.dumps({**completion, **usage}).encode()


COMPLETIONS = Completions()


def _completion(
    answer: ScriptedAnswer, number: int, text: str = "", finish_reason: str | None = None, *, reasoning: str = ""
) -> dict[str, Any]:
    aside = {"reasoning": reasoning} if reasoning else {}
    choice = {"text": text, **aside, "index": 0, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": f"cmpl-lab-{number}",
        "object": "text_completion",
        "created": CREATED,
        "model": answer.model,
        "choices": [choice],
    }
