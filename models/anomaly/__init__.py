"""Finds what is unusual about a worker."""
