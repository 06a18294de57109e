"""Drop-in transports: the SDKs that people already use, under the rule.

``httpx2`` holds the transports for httpx2 (openai 3, anthropic 2, google-genai, mistralai), ``httpx`` their twins for
httpx (groq, litellm). Both are made of the one code path in ``shared``.
"""
