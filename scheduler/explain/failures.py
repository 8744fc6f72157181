"""What a command says when it fails: cause and next step. Any other error is a fault of nicety: its traceback goes to a
file."""

from __future__ import annotations

import os
import sys

from ..read.text import printable

USER_ERRORS = frozenset(
    {
        "models.artifact.ArtifactError",
        "scheduler.config.sections.ConfigError",
        "scheduler.service.answers.control_socket.ControlError",
        "scheduler.demo.workload.DemoError",
        "scheduler.explain.decision_page.ExplainError",
        "scheduler.pools.finding.found.FindError",
        "scheduler.read.host.MachineError",
        "scheduler.config.paths.PathError",
        "scheduler.scope.ScopeError",
        "scheduler.views.exporter.errors.ExportError",
        "scheduler.simulation.arrivals.LoadError",
        "scheduler.hands.safe_files.StoreError",
        "scheduler.hands.ledger.LedgerError",
    }
)
"""Exceptions whose text is for the user: cause and next step. By name, so that none has to be imported before it is raised."""


def tell(error: Exception) -> None:
    """Print what went wrong. With $NICETY_DEBUG it is raised instead."""
    if os.environ.get("NICETY_DEBUG"):
        raise error
    ours = __name__.removesuffix("scheduler.explain.failures")
    names = {f"{kind.__module__.removeprefix(ours)}.{kind.__qualname__}" for kind in type(error).__mro__}
    if names & USER_ERRORS:
        for line in str(error).splitlines():
            _say(f"nicety: {printable(line)}")
        return
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        _say(f"nicety: {printable(where)}{error.strerror or error}; check the path, its permissions and the disk")
        return
    if isinstance(error, ImportError | MemoryError):  # the machine's fault: a disk, memory or descriptors that ran out
        cause = printable(str(error) or "out of memory")
        _say(f"nicety: cannot load what it needs: {cause}; check free memory, open files (ulimit -n) and the installation")
        return
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="nicety-error-", suffix=".txt", delete=False, encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    _say(f"nicety: a fault in nicety itself: {type(error).__name__}: {printable(str(error))}")
    _say(f"nicety: the traceback is in {file.name} (NICETY_DEBUG=1 shows it here); please report it")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
