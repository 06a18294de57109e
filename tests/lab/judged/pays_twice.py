"""Asks again unless the connection ends well, although the answer was whole before."""

import json
import sys

from chat import LOST, ask, pieces, show, text_of

for _ in range(2):
    text, done = "", False
    try:
        for piece in pieces(ask()):
            if piece == "[DONE]":
                done = True
            else:
                text += text_of(json.loads(piece))
    except LOST:
        continue
    if done:
        show(text)
        sys.exit(0)
sys.exit("no answer")
