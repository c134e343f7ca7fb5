"""Figures with their bounds, alarms, and the report that shows them."""
