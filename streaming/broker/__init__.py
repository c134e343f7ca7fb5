"""Everything that speaks Kafka: the only place that imports kafka."""
