"""Takes every status for one that passes."""

import sys
import time

from chat import ask, events, finish_of, show, text_of

for _ in range(3):
    response = ask()
    if response.status == 200:
        for event in events(response):
            show(text_of(event))
            if finish_of(event) == "stop":
                sys.exit(0)
        sys.exit("lost")
    time.sleep(float(response.headers.get("retry-after") or 0.1))
sys.exit("refused")
