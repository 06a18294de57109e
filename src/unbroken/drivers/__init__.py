"""The only loops: they do what :class:`unbroken.core.turn.Turn` says with a wire, and decide nothing.

``synchronous`` and ``asynchronous`` are twins; one conformance suite runs over both.
"""
