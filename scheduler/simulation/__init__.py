"""Simulates a pool: the daemon's policy, peers' rules and an oracle on the same arrivals."""
