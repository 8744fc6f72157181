"""Pools whose workers another supervisor starts and stops: supervisord, systemd."""
