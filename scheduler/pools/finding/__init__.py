"""Finds the pools that run on this machine and that no configuration names yet. Nothing is sized because it was found."""
