"""The only sockets: one HTTP exchange at a time, reported in our own terms.

The contract is :mod:`unbroken.wire.contract`. It is kept here by httpcore2 (``http`` and ``async_http``) over network
streams of our own (``lines`` and ``async_lines``), in which deadlines are kept, PING is sent, bytes are counted and the
true cause of an end is seen; what they decide, sans I/O, is in :mod:`unbroken.wire.watch`.
"""
