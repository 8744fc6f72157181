"""A daemon gives up all capabilities; in its unit it has none, and may not call what gives them up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="takes capabilities away: needs root"),
]

GIVE_UP = (
    "from nicety.scheduler.service.own.rights import give_up; give_up();"
    "print(*[line for line in open('/proc/self/status') if line.startswith('Cap')], sep='')"
)
NONE = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"]


def left(*before: str) -> list[str]:
    """The capabilities that are left, by kind; `before`: what comes before the command."""
    done = subprocess.run([*before, sys.executable, "-c", GIVE_UP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_root_has_none_afterwards() -> None:
    assert left() == [word for name in NONE for word in (name, "0" * 16)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_who_has_none_does_not_call_what_its_unit_forbids() -> None:
    without = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
    refused = ("strace", "-f", "-o", "/dev/null", "-e", "trace=capset", "-e", "inject=capset:error=EPERM")
    assert left(*without, *refused) == [word for name in NONE for word in (name, "0" * 16)]
