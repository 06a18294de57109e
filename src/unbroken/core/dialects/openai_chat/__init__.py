"""OpenAI's chat completions, as servers implement them.

Sources: OpenAI API reference, "Chat completions: streaming"; DeepSeek API docs, "Reasoning model" and "Rate limit"
(``: keep-alive`` comments, ``insufficient_system_resource``); OpenRouter docs, "Streaming" (comments while processing,
errors inside the stream, finish reason ``error``); vLLM and llama.cpp's server, whose streams are recorded in
``tests/corpora/openai_chat``.
"""

from __future__ import annotations

from unbroken.core.continuation.format import ContinuationFormat
from unbroken.core.dialect import Dialect
from unbroken.core.dialects.common import credentials, errors
from unbroken.core.dialects.openai_chat import build, request
from unbroken.core.dialects.openai_chat.decode import ChatDecoder
from unbroken.core.dialects.openai_chat.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.openai_chat.rule import NOTABLE, ChatReader
from unbroken.core.sse import comment


def _continuation() -> ContinuationFormat:
    """Return how answers are continued; few programs need it."""
    from unbroken.core.dialects.openai_chat.continuation import CONTINUATION

    return CONTINUATION


OPENAI_CHAT = Dialect(
    name="openai-chat",
    serves=request.serves,
    read_request=request.read_request,
    reader=ChatReader,
    notable=NOTABLE,
    finish_reasons=FINISH_REASONS,
    decoder=ChatDecoder,
    read_error=errors.read_error,
    error_in=errors.error_in,
    error_body=errors.error_body,
    error_event=errors.error_event,
    path=build.path,
    body=build.body,
    credentials=credentials.bearer,
    credential_headers=credentials.HEADERS,
    request_headers=credentials.REQUEST_HEADERS,
    heartbeat=comment("unbroken"),
    continuation=_continuation,
)
