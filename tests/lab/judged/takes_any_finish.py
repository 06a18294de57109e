"""Every finish reason is the end of a whole answer: a filter's and a failure's too."""

import sys

from chat import LOST, ask, events, finish_of, show, text_of

try:
    for event in events(ask()):
        show(text_of(event))
        if finish_of(event):
            sys.exit(0)
except LOST:
    pass
sys.exit("lost")
