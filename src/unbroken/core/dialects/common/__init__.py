"""Parts that dialects share: errors in OpenAI's format, choices, credentials, system messages."""
