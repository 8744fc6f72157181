"""What adapters share: how busy workers are, who listens, signals."""
