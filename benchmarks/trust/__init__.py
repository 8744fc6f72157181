"""What nicety survives, and how that is known."""
