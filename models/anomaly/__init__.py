"""What is unusual about a worker."""
