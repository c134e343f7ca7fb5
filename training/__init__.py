"""Fit the two fraud models, track them in MLflow, promote them as one release, import it for serving."""
