"""Waits for the rest of an answer that will never come."""

import time

from chat import LOST, ask, events, finish_of, show, text_of

finish = ""
try:
    for event in events(ask()):
        show(text_of(event))
        finish = finish_of(event) or finish
except LOST:
    pass
while finish != "stop":
    time.sleep(0.1)
