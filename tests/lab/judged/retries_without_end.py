"""Never gives up."""

import sys
import time

from chat import LOST, ask, events, finish_of, show, text_of

while True:
    try:
        text = ""
        for event in events(ask()):
            text += text_of(event)
            if finish_of(event) == "stop":
                show(text)
                sys.exit(0)
    except LOST:
        pass
    time.sleep(0.05)
