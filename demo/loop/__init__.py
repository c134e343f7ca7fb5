"""The whole circle in six minutes: drift, late labels, alarm, retraining, shadow, promotion, swap.

Imports nothing of ``training``, ``bentos`` or ``streaming``: each step is a public command.
"""
