"""Workarounds for BentoML and uvicorn: no business rules, each checks its own assumption."""
