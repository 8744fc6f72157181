"""The adapter for pools that are only a command."""
