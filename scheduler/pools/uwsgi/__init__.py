"""Adapter of uWSGI."""
