"""Anthropic's messages, as Anthropic and the servers that imitate it implement them.

Sources: Anthropic API docs, "Streaming messages" (event flow, ping, error events, unknown event types), "Extended
thinking", "Fine-grained tool streaming" (input that is not JSON), "Errors"; the types of the ``anthropic`` SDK 2.12;
the path on Vertex AI is that of the SDK's Vertex client; llama.cpp's server and vLLM, see
``tests/corpora/anthropic_messages``.
"""

from __future__ import annotations

from unbroken.core.continuation.format import ContinuationFormat
from unbroken.core.dialect import Dialect
from unbroken.core.dialects.anthropic_messages import build, errors, request
from unbroken.core.dialects.anthropic_messages.decode import MessagesDecoder
from unbroken.core.dialects.anthropic_messages.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.anthropic_messages.rule import NOTABLE, MessagesReader
from unbroken.core.sse import encode


def _continuation() -> ContinuationFormat:
    """Return how answers are continued; few programs need it."""
    from unbroken.core.dialects.anthropic_messages.continuation import CONTINUATION

    return CONTINUATION


ANTHROPIC_MESSAGES = Dialect(
    name="anthropic-messages",
    serves=request.serves,
    read_request=request.read_request,
    reader=MessagesReader,
    notable=NOTABLE,
    finish_reasons=FINISH_REASONS,
    decoder=MessagesDecoder,
    read_error=errors.read_error,
    error_in=errors.error_in,
    error_body=errors.error_body,
    error_event=errors.error_event,
    path=build.path,
    models_path="/v1/models",
    body=build.body,
    credentials=build.credentials,
    headers=build.HEADERS,
    credential_headers=frozenset({"x-api-key", "authorization"}),
    request_headers=frozenset({"anthropic-version", "anthropic-beta"}),
    heartbeat=encode('{"type": "ping"}', event="ping"),
    complete_path=request.complete_path,
    continuation=_continuation,
)
