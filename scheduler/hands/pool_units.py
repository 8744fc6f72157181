"""How the workers of a supervised pool are named. Must not know who reads that."""

from __future__ import annotations

UNITS = {
    "supervisord": r"[A-Za-z0-9_][\w.-]*:[\w.-]*%(0\d)?d[\w.-]*",
    "systemd": r"[A-Za-z0-9_:][\w.:\\-]*@[\w.:\\-]*%(0\d)?d[\w.:\\-]*",
}
"""What `unit` may be: a name as the supervisor admits it, with a place for one number, that is no option of a command."""
