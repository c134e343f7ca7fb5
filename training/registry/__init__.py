"""MLflow: runs, releases, and which of them is champion."""
