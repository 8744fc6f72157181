"""The command line. Knows what to call for each command and how to print the result. Everything else is elsewhere.

Data goes to stdout, messages to stderr. Exit codes: 0 ok, 1 failure, 2 wrong usage, 3 findings. Modules are imported where they are
used, so that a command that only reads starts in under 0.3 s (benchmarks/cost/startup.py). `guarded_command` in `shared.py` turns
errors that a user can fix into one line with cause and next step. Any other error is a bug: its traceback goes to a file.
"""

from __future__ import annotations

from .app import app, main

__all__ = ["app", "main"]
