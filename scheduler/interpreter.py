"""How nicety starts its own interpreter: never with the working directory on the module search path.

Root may be in any user's directory when typing `nicety train`; a `json.py` there must not run as root.
"""

from __future__ import annotations

import sys

PYTHON = (sys.executable, "-P")
"""The first words of each command that runs this interpreter again. `-P` (Python 3.11) leaves the working directory out."""

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""The same as an environment variable, for an interpreter that nicety did not choose: one older than 3.11 ignores it."""
