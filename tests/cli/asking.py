"""A program that asks a model, as any other one does: run by ``unbroken exec`` in the tests.

Arguments: the variable with the base URL, and what follows it in the URL.
"""

import json
import os
import sys
import urllib.error
import urllib.request

variable, path = (sys.argv[1:] + ["OPENAI_BASE_URL", "/chat/completions"][len(sys.argv) - 1 :])[:2]
body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "?"}]}).encode()
headers = {"content-type": "application/json", "authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"}
try:
    with urllib.request.urlopen(
        urllib.request.Request(os.environ[variable] + path, body, headers), timeout=20
    ) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    sys.stdout.write(choice["delta"].get("content") or "")
except urllib.error.HTTPError as error:
    sys.stdout.write(f"HTTP {error.code}")
