"""What each command builds and runs; the only place that knows every part."""
