"""What the monitor shows over HTTP: page, figures, metrics, health."""
