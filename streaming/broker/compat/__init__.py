"""Workarounds for kafka-python 3.0: no rules of the bridge, each checks its own assumption."""
