"""Catches what a connection raises, and goes on as if nothing had been; asks again first, which doubles."""

from chat import LOST, ask, events, finish_of, show, text_of

for _ in range(2):
    try:
        for event in events(ask()):
            show(text_of(event))
            if finish_of(event) == "stop":
                raise SystemExit
    except LOST:
        pass
