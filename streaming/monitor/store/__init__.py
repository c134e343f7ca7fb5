"""The database, and what joins and counts in it."""
