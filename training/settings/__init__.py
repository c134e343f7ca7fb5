"""What every command may be told: a typed view of ``configs/training.yaml``."""
