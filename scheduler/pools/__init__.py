"""Pool adapters, one a file, behind the `Pool` protocol of `scheduler/ports.py`."""
