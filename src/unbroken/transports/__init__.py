"""Drop-in transports, which apply the rule to the SDKs that people already use.

``httpx2`` holds the transports for httpx2 (openai 3, anthropic 2, google-genai, mistralai), ``httpx`` their twins for
httpx (groq, litellm). Both use the same base classes and ``shared``.
"""
