"""The network and the trees: fitted, and nothing of what is done with them."""
