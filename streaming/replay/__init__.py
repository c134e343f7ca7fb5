"""Recorded transactions to a topic, at a rate."""
