"""Training data: the scenes world."""
