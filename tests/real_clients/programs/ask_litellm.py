import sys

import litellm

messages = [{"role": "user", "content": "Hello?"}]
for chunk in litellm.completion(model="openai/gpt-5", max_tokens=60, messages=messages, stream=True):
    if chunk.choices:
        sys.stdout.write(chunk.choices[0].delta.content or "")
