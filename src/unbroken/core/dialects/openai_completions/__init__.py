"""OpenAI's legacy completions: the continuation of a prompt.

Sources: OpenAI API reference, "Completions"; vLLM's and DeepSeek's documentation of ``/completions`` (DeepSeek fills in
the middle); Mistral's ``/v1/fim/completions``, whose choices carry a ``delta`` as in a chat; llama.cpp's server, whose
streams are recorded in ``tests/corpora/openai_completions``.

Each of several prompts gets ``n`` choices, numbered consecutively; the attempt settles when each has a finish reason.
"""

from __future__ import annotations

from unbroken.core.continuation.format import ContinuationFormat
from unbroken.core.dialect import Dialect
from unbroken.core.dialects.common import credentials, errors
from unbroken.core.dialects.openai_completions import build, request
from unbroken.core.dialects.openai_completions.decode import CompletionsDecoder
from unbroken.core.dialects.openai_completions.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.openai_completions.rule import NOTABLE, CompletionsReader
from unbroken.core.sse import comment


def _continuation() -> ContinuationFormat:
    """Return how answers are continued; few programs need it."""
    from unbroken.core.dialects.openai_completions.continuation import CONTINUATION

    return CONTINUATION


OPENAI_COMPLETIONS = Dialect(
    name="openai-completions",
    serves=request.serves,
    read_request=request.read_request,
    reader=CompletionsReader,
    notable=NOTABLE,
    finish_reasons=FINISH_REASONS,
    decoder=CompletionsDecoder,
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
