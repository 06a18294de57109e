"""Asks once, shows what comes, and fails if the answer has not said that it is whole. Leaves when it has."""

import sys

from chat import LOST, ask, events, finish_of, show, text_of

try:
    response = ask()
    if response.status != 200:
        sys.exit(f"HTTP {response.status}")
    for event in events(response):
        if "error" in event:
            sys.exit(f"the server reports an error: {event['error']['message']}")
        show(text_of(event))
        if finish := finish_of(event):
            sys.exit(0 if finish == "stop" else f"the answer was ended: {finish}")
except (*LOST, ValueError) as error:
    sys.exit(f"the answer was lost: {error!r}")
sys.exit("the answer ended too early")
