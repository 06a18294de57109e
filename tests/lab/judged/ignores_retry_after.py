"""Asks again at once, whatever the server says about when."""

import sys

from chat import ask, events, finish_of, show, text_of

for _ in range(3):
    response = ask()
    if response.status == 200:
        for event in events(response):
            show(text_of(event))
            if finish_of(event) == "stop":
                sys.exit(0)
        sys.exit("lost")
    if response.status not in (429, 503):
        break
sys.exit("refused")
