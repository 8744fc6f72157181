"""What a service gains beside batch work, and what waiters lose when a lock holder is demoted."""
