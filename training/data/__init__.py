"""Transactions: found, read, checked, invented, split."""
