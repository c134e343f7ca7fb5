"""Records a second time: dead letters back to their topic, a range decided again."""
