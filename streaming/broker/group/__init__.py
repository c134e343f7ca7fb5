"""The input topic, read as a member of a consumer group."""
