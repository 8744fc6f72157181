"""nicety: an adaptive process scheduler for Linux. The code is in `nicety.scheduler`, `nicety.models`, `nicety.training`."""

__version__ = "0.1.0"
