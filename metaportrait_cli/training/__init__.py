"""Training: prepared data, losses, and the loops that make the bundled weights."""
