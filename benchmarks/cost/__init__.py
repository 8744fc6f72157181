"""What nicety takes for itself: CPU, memory, disk and time, and whether it holds out under load."""
