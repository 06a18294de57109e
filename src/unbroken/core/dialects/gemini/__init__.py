"""Gemini's generateContent, as Google's two APIs implement it: the Gemini API and Vertex AI.

A stream of ``alt=sse`` has no terminator and no pings: each event is a whole response, and only a ``finishReason``
distinguishes a finished answer from a cut one. It must not contain comments: Google's SDKs break on them.

Sources: Gemini API reference, "GenerateContentResponse", "Candidate: FinishReason"; Gemini API docs, "Thought
signatures"; ``google.rpc.Status`` and ``QuotaFailure``; the types and the stream reader of the ``google-genai`` SDK
3.4. None of its finish reasons reports a failure of the provider: they say what the model did, or what stopped it.
"""

from __future__ import annotations

from unbroken.core.dialect import Dialect
from unbroken.core.dialects.gemini import build, errors, request
from unbroken.core.dialects.gemini.decode import GeminiDecoder
from unbroken.core.dialects.gemini.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.gemini.rule import NOTABLE, GeminiReader

GEMINI = Dialect(
    name="gemini",
    serves=request.serves,
    read_request=request.read_request,
    reader=GeminiReader,
    notable=NOTABLE,
    finish_reasons=FINISH_REASONS,
    decoder=GeminiDecoder,
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
    request_headers=frozenset({"x-goog-user-project"}),
    has_terminator=False,
    heartbeat=b"",  # Google's SDK parses a comment as the beginning of a bare JSON error
    versions=("v1beta", "v1alpha", "v1"),
)
