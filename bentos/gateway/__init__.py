"""What a caller meets: routing, limits, keys, errors and the OpenAPI page."""
