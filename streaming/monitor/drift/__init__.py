"""Compares the stream with what a release was trained on."""
