"""The decision logic: pure, without I/O, clock, randomness, logging or threads.

A driver reports to a :class:`unbroken.core.turn.Turn` what happened and asks it what to do. Start reading there.
"""
