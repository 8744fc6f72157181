"""The CPU, memory, disk and time that nicety itself takes, and whether it keeps up under load."""
