"""Typed view of ``configs/streaming.yaml``: the sections, and how they are loaded."""
