import sys

import openai

for event in openai.OpenAI().responses.create(model="gpt-5", max_output_tokens=60, input="Hello?", stream=True):
    if event.type == "response.output_text.delta":
        sys.stdout.write(event.delta)
    elif event.type == "response.failed":
        raise SystemExit(f"the response failed: {event.response.error}")
