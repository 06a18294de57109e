"""The end of the body is the end of the answer."""

import sys

from chat import LOST, ask, events, show, text_of

try:
    response = ask()
    if response.status != 200:
        sys.exit("refused")
    for event in events(response):
        if "error" in event:
            sys.exit("failed")
        show(text_of(event))
except LOST:
    sys.exit("lost")
