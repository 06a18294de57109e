"""The decisions: pure, without I/O, clock, randomness, logging or threads.

A driver tells the core what happened and asks what to do (:class:`unbroken.core.turn.Turn`). Start reading there.
"""
