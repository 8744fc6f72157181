"""What adapters share: how busy workers are, which sockets listen, signals."""
