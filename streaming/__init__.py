"""Card transactions from Kafka to ``POST /classify`` and back, each decided exactly once."""
