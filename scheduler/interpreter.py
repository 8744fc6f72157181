"""How nicety starts its own interpreter: with no code of the working directory, of a home directory, or of the environment.

Root may be in any user's directory when typing `nicety train`; a `json.py` there must not run as root.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of what nicety starts for itself: folders of root alone (systemd's default for services, systemd.exec(5))."""

_KEPT = frozenset(
    {
        *("HOME", "USER", "LOGNAME", "TZ", "LANG", "LANGUAGE", "TERM", "COLUMNS", "LINES", "NO_COLOR", "TMPDIR"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY"),
    }
)
_KEPT_BEGINNINGS = ("NICETY_", "LC_", "XDG_")
"""Variables that say where files are, how to print and how many threads to use. None of them names code."""


def place() -> str:
    """The folder that holds the package of this nicety."""
    package = sys.modules[__name__.partition(".scheduler.")[0]].__file__
    assert package is not None
    return os.path.realpath(Path(package).parents[1])


def is_at_home() -> bool:
    """Whether this nicety is among the packages of a home directory (`pip install --user`). Then those must be found."""
    return bool(site.ENABLE_USER_SITE) and place() == os.path.realpath(site.getusersitepackages())


PYTHON = (sys.executable, "-P", *(() if is_at_home() else ("-s",)))
"""The first words of each command that runs this interpreter again. `-P` (Python 3.11) leaves the working directory out, `-s` the
packages of a home directory. Together with `environment` that is as isolated as `-I`, which would not find a nicety that runs from
its checkout."""


def isolated(module: str) -> tuple[str, ...]:
    """The first words of a command that runs `main` of a module of nicety with the words that follow. No site packages, no variable
    of the environment and no working directory decides what is loaded."""
    code = f"import sys; sys.path.insert(0, sys.argv.pop(1)); from {module} import main; sys.exit(main(sys.argv[1:]))"
    return (sys.executable, "-I", "-S", "-c", code, place())


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment for `PYTHON`, made from that of this process: a fixed PATH, and only variables that name no code.

    Of PYTHONPATH the folder of this nicety stays, if it was named there.

    >>> environment({"PATH": "/tmp/x", "PYTHONPATH": "/tmp/x", "LD_PRELOAD": "/tmp/x.so", "LANG": "C"}) == {
    ...     "LANG": "C",
    ...     "PATH": SEARCH_PATH,
    ... }
    True
    """
    kept = {name: value for name, value in own.items() if name in _KEPT or name.startswith(_KEPT_BEGINNINGS)}
    named = (os.path.realpath(each) for each in own.get("PYTHONPATH", "").split(os.pathsep) if each)
    return {**kept, "PATH": SEARCH_PATH, **({"PYTHONPATH": place()} if place() in named else {})}


def load_numpy() -> None:
    """Load numpy with one thread. With more, the threads of its matrix library spin for 0.1 s after each tick, and sum in a
    different order each time. The library reads the number when it is loaded. Then the variables are reset, because pools that the
    daemon starts must not inherit them."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    import numpy  # noqa: F401

    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
