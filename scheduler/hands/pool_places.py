"""The commands that list, start, stop and restart the places of a supervised pool: instances of a systemd template, or processes
of a supervisord program.

A place has a number from 0. Its name is `unit` with the number in it, and the first name has the number `first`. Must not know what
becomes of a command.
"""

from __future__ import annotations

from .pool_blocks import Block
from .pool_units import UNITS

KINDS = ("supervisord", "systemd")

PROGRAMS = {"supervisord": "supervisorctl", "systemd": "systemctl"}
"""What is asked where the configuration gives no `command`."""

FIRST = {"supervisord": 0, "systemd": 1}
"""The number in the name of the first place where the configuration has no `first`: supervisord's own default (numprocs_start), and
what people type (chosen)."""

SHOWN = ("Id", "LoadState", "ActiveState", "MainPID")
"""Properties of a unit that are asked for."""


def place_name(block: Block, number: int) -> str:
    """The name of a place in its supervisor's words. Raises ValueError if the configuration has none."""
    import re  # here: most hands never need it

    first = FIRST[block.kind] if block.first is None else block.first
    if re.fullmatch(UNITS[block.kind], block.unit) is None or not isinstance(first, int):
        raise ValueError(f"unit {block.unit!r} names no place")
    name = block.unit % (first + number)
    return f"{name}.service" if block.kind == "systemd" and not name.endswith(".service") else name


def place_command(block: Block, verb: str, number: int) -> list[str]:
    """The argument list for "status" (of all places) or for "start", "stop" or "restart" of one."""
    command = list(block.command) or [PROGRAMS[block.kind]]
    if verb != "status":
        # systemd would keep us waiting until the worker is up or gone
        return [*command, *(["--no-block"] if block.kind == "systemd" else []), verb, place_name(block, number)]
    if block.kind == "supervisord":
        return [*command, "status", f"{block.unit.partition(':')[0]}:*"]
    names = [place_name(block, place) for place in range(block.maximum)]
    return [*command, "show", f"--property={','.join(SHOWN)}", *names]
