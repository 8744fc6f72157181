"""Decides what is done about a tick. Pure: the same ticks give the same decisions."""
