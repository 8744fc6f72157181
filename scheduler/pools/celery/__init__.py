"""Adapter of Celery."""
