"""Calls between the gateway and the runners' processes."""
