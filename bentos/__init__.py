"""The fraud-detection service: two models behind ``POST /classify``."""
