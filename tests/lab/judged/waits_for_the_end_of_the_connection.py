"""Knows only one end of an answer, that of the body."""

import json

from chat import ask, finish_of, pieces, show, text_of

finish = ""
for piece in pieces(ask()):
    if piece != "[DONE]":
        event = json.loads(piece)
        show(text_of(event))
        finish = finish_of(event) or finish
if finish != "stop":
    raise SystemExit("the answer is not whole")
