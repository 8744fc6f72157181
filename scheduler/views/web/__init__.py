"""The page: `nicety web`, a process of its own that a browser reads the frame and the stores through."""
