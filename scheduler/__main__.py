"""The `nicety` program. Undo and the hands need the standard library alone: they must work when nothing else does."""

from __future__ import annotations

import os
import sys

_MORE = 64  # exit code of an undo for which the whole command line is needed


def _undo() -> int:
    from .hands.command import undo

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names may hold any letter
    code = undo(sys.argv[2:], os.environ, os.geteuid())
    return _MORE if code is None else code


def main() -> None:
    """Entry point of `nicety` and of `python -m nicety.scheduler`."""
    if sys.argv[1:2] == ["undo"]:
        from .hands.urgent import urgently  # and nothing else before it is in a hurry

        code = urgently(_undo)
        if code < 0:
            print(f"nicety: the process that undid was killed by signal {-code}; run `nicety undo` again", file=sys.stderr)
            code = 1
        if code != _MORE:
            sys.exit(code)
    if sys.argv[1:2] == ["hands"] and "--help" not in sys.argv:
        from .hands.service import main as hands

        sys.exit(hands(sys.argv[2:], os.environ))
    from .cli import main as whole

    whole()


if __name__ == "__main__":
    main()
