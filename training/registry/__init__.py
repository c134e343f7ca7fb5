"""MLflow runs and releases, and the way from there to the BentoML model store."""
