"""Labels: what people found out about transactions, after the decision."""
