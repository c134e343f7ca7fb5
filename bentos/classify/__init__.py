"""From the body of ``POST /classify`` to decisions."""
