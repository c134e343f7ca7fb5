"""Batch scoring with a release, no server."""
