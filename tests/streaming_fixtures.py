"""Fixtures of the streaming tests."""

import warnings

with warnings.catch_warnings():
    # kafka-python reads its schemas with importlib.resources.read_text, deprecated since Python 3.11.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # noqa: F401
