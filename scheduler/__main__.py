"""The `nicety` program. Undo is tried with the standard library alone first: it must work when nothing else does."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point of `nicety` and of `python -m nicety.scheduler`."""
    if sys.argv[1:2] == ["undo"]:
        from .hands.command import undo

        code = undo(sys.argv[2:], os.environ, os.geteuid())
        if code is not None:
            sys.exit(code)
    from .cli import main as whole

    whole()


if __name__ == "__main__":
    main()
