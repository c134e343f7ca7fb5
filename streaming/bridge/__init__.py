"""Consume, classify, publish, commit: the loop and its stages."""
