"""How nicety starts an interpreter of its own: never with the working directory among the places that modules come from.

Root may stand in anybody's folder when it types `nicety train`; a `json.py` that lies there must not run as root.
"""

from __future__ import annotations

import sys

PYTHON = (sys.executable, "-P")
"""The first words of each command that runs this interpreter again. `-P` (Python 3.11) leaves the working directory out."""

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""The same for an interpreter that somebody else has chosen and that may be older: one that does not know it ignores it."""
