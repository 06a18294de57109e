"""Prints what a server answers, and is content with it."""

import sys

from chat import LOST, ask, events, finish_of, show, text_of

try:
    response = ask()
    if response.status != 200:
        show(response.read().decode())
        sys.exit(0)
    for event in events(response):
        show(text_of(event))
        if finish_of(event) == "stop":
            sys.exit(0)
except LOST:
    pass
sys.exit("lost")
