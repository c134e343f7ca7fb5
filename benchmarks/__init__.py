"""What is claimed about speed and quality, as scripts that anyone can run."""
