"""Continuation of an answer that was cut after its first output: ``after_output="continue"``.

The partial text is sent back as the beginning of the assistant's message, and what the server adds is spliced into the
stream that the caller already reads. :mod:`.continuer` is the state over a turn; :mod:`.seam` decides whether a
continuation fits the text before it; :mod:`.splice` hands events on; :mod:`.format` is what a dialect contributes.
"""
