"""Starts the whole pipeline through its public commands, streams held-out transactions, sums up.

Imports nothing of ``training``, ``bentos`` or ``streaming``: what works here works for a user.
"""
