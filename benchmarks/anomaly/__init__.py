"""Whether misbehaving workers, antagonists and deadlocks are found, named right, and not found where all is well."""
