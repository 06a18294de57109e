"""The only sockets: one HTTP exchange at a time, with Unbroken's own failures.

The contract is :mod:`unbroken.wire.contract`. It is implemented with httpcore2 (``http`` and ``async_http``) over
network streams of Unbroken's own (``lines`` and ``async_lines``), which enforce deadlines, send PING, count bytes and
see the true cause of an end; their decisions, without I/O, are in :mod:`unbroken.wire.watch`.
"""
