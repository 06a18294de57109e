"""Shows what comes, and after a cut shows it from the beginning."""

import sys

from chat import LOST, ask, events, finish_of, show, text_of

for _ in range(3):
    try:
        for event in events(ask()):
            show(text_of(event))
            if finish_of(event) == "stop":
                sys.exit(0)
    except LOST:
        pass
sys.exit("lost")
