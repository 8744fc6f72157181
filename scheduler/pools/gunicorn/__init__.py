"""The gunicorn adapter."""
