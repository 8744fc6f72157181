"""The control socket, and what answers there."""
