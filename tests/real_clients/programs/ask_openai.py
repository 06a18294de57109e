import sys

import openai

messages = [{"role": "user", "content": "Hello?"}]
for chunk in openai.OpenAI().chat.completions.create(model="gpt-5", max_tokens=60, messages=messages, stream=True):
    if chunk.choices:
        sys.stdout.write(chunk.choices[0].delta.content or "")
