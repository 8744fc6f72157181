"""The whole daemon beside programs that nobody prepared."""
