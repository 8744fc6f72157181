"""Whether misbehaving workers, antagonists and deadlocks are found and named right, and healthy pools are left alone."""
