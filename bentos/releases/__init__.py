"""Which release is served, how it is loaded, and how a running service changes over to another one."""
