"""Adapter of gunicorn."""
