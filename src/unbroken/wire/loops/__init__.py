"""The loops: each waits for the socket of a :class:`unbroken.wire.stream.BaseStream` in its own way."""
