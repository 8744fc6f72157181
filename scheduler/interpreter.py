"""How nicety starts its own interpreter: never with the working directory on the module search path.

Root may be in any user's directory when typing `nicety train`; a `json.py` there must not run as root.
"""

from __future__ import annotations

import sys

PYTHON = (sys.executable, "-P")
"""The first words of each command that runs this interpreter again. `-P` (Python 3.11) leaves the working directory out."""

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""The same for an interpreter that somebody else chose and that may be older: one that does not know it ignores it."""
