"""Live quality: transactions, decisions and labels brought together, and what they say of a release."""
