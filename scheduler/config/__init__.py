"""The configuration, and where files lie. Knows files and environment. Must not know the machine."""
