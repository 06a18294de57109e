"""Asks every question twice, and shows the second answer."""

import sys

from chat import ask, events, finish_of, show, text_of

for _ in range(2):
    text, finish = "", ""
    for event in events(ask()):
        text += text_of(event)
        finish = finish_of(event) or finish
    if finish != "stop":
        sys.exit("lost")
show(text)
