"""How good a model is, what it decides, and whether a challenger may be promoted."""
