"""Pool adapters behind the `PoolAdapter` protocol of `scheduler/ports.py`, and what they share (`sensing/`)."""
