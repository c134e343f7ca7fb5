"""Typed view of ``configs/serving.yaml``: the sections, and how they are loaded."""
