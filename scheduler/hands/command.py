"""`nicety undo` without a daemon: from the ledger alone, with nothing but the standard library, and in a hurry.

What it cannot do is left to the whole command line: it asks a running daemon, resizes pools, and explains wrong usage.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence

from .faults import Status
from .ledger import NAME, LedgerError, StateBusyError, StateLock, left_behind, open_changes
from .owner import ALL, HANDS, become, owner_of, part_of
from .places import Control, PoolPlace
from .tally import Done
from .undoing import Undone, undo_directory

OK, FAILURE, FINDINGS = 0, 1, 3
"""Exit codes, as of all commands."""

SCHEMA = 1
"""Of what --json prints: that of `act.undo.Undone`."""

NOTHING = "no changes are in force, so there is nothing to undo"
PATIENCE = 5.0
"""Seconds to wait for a sentry that is putting values back (chosen: it takes less than one)."""

_POOL = f'"{Control.POOL_SIZE}"'.encode()  # in each line of the ledger that changes the size of a pool


def undo(arguments: Sequence[str], environment: Mapping[str, str], uid: int) -> int | None:
    """Put everything back that a dead daemon left changed, and print what was done. Returns the exit code; None: the whole command
    line is needed, and nothing was done."""
    found = _options(arguments, environment, uid)
    if found is None:
        return None
    state_dir, as_json = found
    state_dir = part_of(state_dir, HANDS)
    try:
        owner = owner_of(state_dir)
        if owner is not None:
            become(owner, ALL)
        if not left_behind(state_dir):
            return _print((), as_json)
        with StateLock(state_dir, patience=PATIENCE):
            if _needs_adapters(state_dir):
                return None
            return _undo(state_dir, as_json)
    except StateBusyError:
        return None  # a daemon is there: it is asked
    except (LedgerError, OSError) as error:
        print(f"nicety: {error}", file=sys.stderr)
        return FAILURE


def _undo(state_dir: str, as_json: bool) -> int:
    gc.disable()  # what an undo makes is no garbage, and looking for some takes 5 ms of its time
    try:
        return _print(_outcomes(undo_directory(state_dir)), as_json)
    except (LedgerError, OSError) as error:
        print(f"nicety: {error}", file=sys.stderr)
        return FAILURE


def _options(arguments: Sequence[str], environment: Mapping[str, str], uid: int) -> tuple[str, bool] | None:
    """(state directory, whether to print JSON); None if it takes more to know them."""
    state_dir, as_json, configured, rest = environment.get("NICETY_STATE_DIR", ""), False, False, list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word == "--json":
            as_json = True
        elif name in ("--state-dir", "--config") and (equals or rest):
            value = value if equals else rest.pop(0)
            if name == "--state-dir":
                state_dir = value
            else:
                configured = True
        else:
            return None
    if not state_dir and not configured and not _configured(environment, uid):
        state_dir = _usual(environment, uid)
    return (os.path.abspath(os.path.expanduser(state_dir)), as_json) if state_dir else None


def _configured(environment: Mapping[str, str], uid: int) -> bool:
    """Whether there may be a configuration, which can name a state directory."""
    if environment.get("NICETY_CONFIG"):
        return True
    places = ["/etc/nicety/nicety.toml"]
    if uid != 0:
        base = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
        places.append(f"{base}/nicety/nicety.toml")
    return any(map(os.path.lexists, places))


def _usual(environment: Mapping[str, str], uid: int) -> str:
    """The state directory where none is named; "" if that takes more to know. As `config.paths.state_paths`."""
    if uid == 0:
        return "/var/lib/nicety"
    if environment.get("XDG_STATE_HOME"):
        return f"{environment['XDG_STATE_HOME']}/nicety"
    own = f"{environment.get('HOME', '')}/.local/state/nicety"
    return own if os.path.isdir(own) and os.access(own, os.W_OK, effective_ids=True) else ""


def _needs_adapters(state_dir: str) -> bool:
    """Whether the size of a pool is to be put back: its adapter does that. Most ledgers have none, and need not be understood to
    see that."""
    try:
        with open(os.path.join(state_dir, NAME), "rb") as lines:
            if not any(_POOL in line for line in lines):
                return False
        return any(isinstance(entry.knob.on, PoolPlace) for entry in open_changes(state_dir))
    except OSError:
        return False  # opening it says why


def _outcomes(undone: Undone) -> list[dict[str, object]]:
    """What was done, as the records that the whole command line prints."""
    notes = [Done("", "ledger", Status.FAILED if note.lost else Status.UNCHANGED, note.text, 0) for note in undone.notes]
    return [
        {"decision": it.decision, "status": it.status, "target": it.target, "detail": it.detail, "changed": it.changed}
        for it in (*notes, *undone.done)
    ]


def _print(outcomes: Sequence[Mapping[str, object]], as_json: bool) -> int:
    """Print what was done. Returns the exit code."""
    if as_json:
        import json

        # Piece by piece: the whole text takes as much memory as the undo.
        json.dump({"schema": SCHEMA, "outcomes": outcomes}, sys.stdout, indent=2)
        print()
    elif not outcomes:
        print(NOTHING, file=sys.stderr)
    else:
        print(*_table(outcomes), sep="\n")
    bad = {outcome["status"] for outcome in outcomes}
    if bad & {Status.FAILED, Status.REFUSED, Status.BLOCKED, Status.LATER}:
        return FAILURE
    return FINDINGS if bad & {Status.FOREIGN, Status.PARTIAL} else OK


def _table(outcomes: Sequence[Mapping[str, object]]) -> list[str]:
    """A line for each outcome, under a heading; long ones go on under their own beginning."""
    rows = [("target", "outcome", "detail")]
    rows += [(str(each["target"]), str(each["status"]), str(each["detail"])) for each in outcomes]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    first = min(first, 40)
    try:
        width = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        width = 0
    room = max(20, width - first - second - 4) if width else 1 << 30
    lines = []
    for target, status, detail in rows:
        head = f"{target:<{first}}  {status:<{second}}  "
        for part in _wrapped(detail, room):
            lines.append(f"{head}{part}".rstrip())
            head = " " * (first + second + 4)
    return lines


def _wrapped(text: str, room: int) -> list[str]:
    """The words of a text in lines of at most `room` characters, if no word is longer."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines
