"""Resumption of a response that goes on at the server after its stream was cut.

The stream is taken up behind the last whole event that came, by a request that costs no generation, and the caller
reads the bytes of one uncut stream. :mod:`.resumer` is the state over a turn; :mod:`.events` passes whole events on
and checks that they follow one another; :mod:`.requests` builds requests about a response; :mod:`.format` is what a
dialect contributes. :mod:`.kept` is the same for whatever a relay of ours keeps: there the position is a byte.
"""
