"""What people look at: model card, plots, curves."""
