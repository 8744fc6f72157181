"""The Celery adapter."""
