"""What a bridge tells about itself: metrics, health, logs."""
