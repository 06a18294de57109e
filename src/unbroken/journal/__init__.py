"""The journal of lost attempts, from which the doctor tells what past turns met.

A small SQLite file in the platform's state folder, written by the commands ``run``, ``exec`` and ``relay``; the
libraries write nothing. It holds times, failures and paths, and no content and no keys. A journal that cannot
be written fails and delays no turn: writing comes after the turn, on a thread, and its errors are dropped.
"""
