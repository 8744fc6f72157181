"""The command line. Knows what to call for each command and how to say the result; everything else is elsewhere.

Data goes to stdout, talk to stderr. Exit: 0 ok, 1 failure, 2 usage, 3 findings. Modules are imported where they are used: a reading
command starts in under 0.3 s (benchmarks/cost/startup.py). Errors that a user can do something about become one line with cause and
next step, in one place (`guarded_command` in `shared.py`); any other error is a bug, and its traceback goes to a file.
"""

from __future__ import annotations

from .app import app, main

__all__ = ["app", "main"]
