import sys

import anthropic

messages = [{"role": "user", "content": "Hello?"}]
with anthropic.Anthropic().messages.stream(model="claude-sonnet-4-5", max_tokens=60, messages=messages) as stream:
    for text in stream.text_stream:
        sys.stdout.write(text)
