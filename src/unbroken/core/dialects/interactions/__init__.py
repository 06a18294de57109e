"""Gemini's Interactions API, as Google's two APIs implement it: the Gemini API and Vertex AI.

A stream is a list of steps: thoughts, tool calls and their results, the model's output. Each is announced, mostly still
empty, comes in deltas and is closed. ``interaction.completed`` says how the interaction ended, without repeating it;
``event: done`` with ``[DONE]`` follows. Until May 2026 (``Api-Revision: 2026-05-07``) the same came as a flat list of
contents under other names (``interaction.start``, ``content.delta``, ``interaction.complete``). Vertex AI still
documents them, as deprecated, and they are read too.

Sources: Gemini API docs, "Streaming interactions", "Interactions API" (reference of v1beta) and "Interactions API:
breaking changes (May 2026)"; Vertex AI reference, "InteractionStreamingEvent" (v1beta1); the types and the reader of
streams of the ``google-genai`` SDK 3.4 (steps) and 1.x (contents: ``_interactions/types/content_delta.py``); big-AGI's
notes of what the API really sends (``kb/modules/LLM-gemini-interactions.md``), such as ``error`` events without an
error, after which the stream goes on.
"""

from __future__ import annotations

from unbroken.core.dialect import Dialect
from unbroken.core.dialects.interactions import build, errors, request
from unbroken.core.dialects.interactions.decode import InteractionsDecoder
from unbroken.core.dialects.interactions.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.interactions.rule import NOTABLE, InteractionsReader
from unbroken.core.resumption.format import Resumption
from unbroken.core.sse import comment


def _resumption() -> Resumption:
    """Return how interactions are resumed; few programs need it."""
    from unbroken.core.dialects.interactions.resumption import RESUMPTION

    return RESUMPTION


INTERACTIONS = Dialect(
    name="interactions",
    serves=request.serves,
    read_request=request.read_request,
    reader=InteractionsReader,
    notable=NOTABLE,
    finish_reasons=FINISH_REASONS,
    decoder=InteractionsDecoder,
    read_error=errors.read_error,
    error_in=errors.error_in,
    error_body=errors.error_body,
    error_event=errors.error_event,
    path=build.path,
    models_path="/v1beta/models",
    body=build.body,
    credentials=build.credentials,
    credential_headers=frozenset({"x-goog-api-key", "authorization"}),
    credential_parameter="key",
    request_headers=frozenset({"x-goog-user-project", "api-revision"}),
    heartbeat=comment("unbroken"),
    resumption=_resumption,
    versions=("v1beta", "v1alpha", "v1"),
)
