"""Looks for text in every event, and an error has none."""

import sys

from chat import LOST, ask, events, finish_of, show, text_of

finish, error = "", False
try:
    response = ask()
    if response.status != 200:
        sys.exit("refused")
    for event in events(response):
        show(text_of(event))
        finish = finish_of(event) or finish
        error = error or "error" in event
except LOST:
    sys.exit("lost")
sys.exit(0 if finish == "stop" or error else "lost")
