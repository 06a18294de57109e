"""OpenAI's Responses, as servers implement them.

Sources: OpenAI API reference, "Responses: streaming events" and "Create a model response"; the types of openai-python
3.54; openai-node #1964 (``keepalive``); openai-dotnet #881 (``error`` nested or flat); openai/codex #10324 and
CLIProxyAPI #6007 (``codex.*``, ``responsesapi.*``); vercel/ai's recordings of OpenAI, Azure, xAI and GitHub Copilot;
OpenRouter docs, "Responses API"; vLLM; llama.cpp's server, whose streams are recorded in
``tests/corpora/openai_responses``.

A stream sends ``response.created`` and announces each output item while it is still empty. A reasoning model announces
its reasoning at once and is then silent, for minutes: that is still the prelude. One event says how the response ended
and repeats the whole answer; it is the last one, except for ``[DONE]`` from some gateways.
"""

from __future__ import annotations

from unbroken.core.dialect import Dialect
from unbroken.core.dialects.common import credentials
from unbroken.core.dialects.common.errors import error_body, read_error
from unbroken.core.dialects.openai_responses import build, errors, request
from unbroken.core.dialects.openai_responses.decode import ResponsesDecoder
from unbroken.core.dialects.openai_responses.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.openai_responses.rule import NOTABLE, ResponsesReader
from unbroken.core.resumption.format import Resumption
from unbroken.core.sse import comment


def _resumption() -> Resumption:
    """Return how responses are resumed; few programs need it."""
    from unbroken.core.dialects.openai_responses.resumption import RESUMPTION

    return RESUMPTION


OPENAI_RESPONSES = Dialect(
    name="openai-responses",
    serves=request.serves,
    read_request=request.read_request,
    reader=ResponsesReader,
    notable=NOTABLE,
    finish_reasons=FINISH_REASONS,
    decoder=ResponsesDecoder,
    read_error=read_error,
    error_in=errors.error_in,
    error_body=error_body,
    error_event=errors.error_event,
    path=build.path,
    body=build.body,
    credentials=credentials.bearer,
    credential_headers=credentials.HEADERS,
    request_headers=credentials.REQUEST_HEADERS,
    heartbeat=comment("unbroken"),
    resumption=_resumption,
)
