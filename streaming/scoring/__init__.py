"""Asking ``POST /classify``: what may be sent, how it is sent, what the answer says."""
