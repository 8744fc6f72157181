"""Adapter of pools that are nothing but a command."""
