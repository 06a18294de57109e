"""Finish reasons that report a failure of the provider, whatever the dialect, and those that gateways translate.

Sources: DeepSeek API docs, "Create chat completion" (``insufficient_system_resource``); Zhipu BigModel docs, "Chat
completions" (``network_error``); vLLM and SGLang, ``FinishReason`` (``abort``, ``error``); OpenRouter docs, "Errors"
(``error``); Mistral docs, "Chat completion" (``error``); Cohere docs, "Chat" (``ERROR``); Ollama, ``DoneReason``
(``unload``); the reports of vllm #57082, hermes-agent #92161 and opencode #44540.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.dialect import FinishMeaning

FAILING: Mapping[str, FinishMeaning] = MappingProxyType(
    dict.fromkeys(
        [
            *("error", "abort", "aborted", "network_error", "insufficient_system_resource", "unload"),
            *("cancelled", "canceled", "interrupted", "failed", "failure", "timeout", "exception", "overloaded"),
            *("server_error", "internal_error", "internal_server_error", "upstream_error", "engine_error"),
            *("provider_error", "model_error", "api_error", "system_error", "service_error", "connection_error"),
        ],
        FinishMeaning.FAILED,
    )
)
"""Reasons, in lower case, that are no ending of an answer."""
