"""A procfs of made-up processes, for what looks at argument lists and at who is whose child. Must not know pools."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


class ProcessTree:
    """Processes below a directory, as /proc shows them. Start times rise with the pids."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(
        self,
        pid: int,
        parent: int,
        arguments: Sequence[str],
        *,
        exe: str = "/usr/bin/python3.11",
        unit: str = "",
        directory: str = "/srv/app",
        environ: str = "",
    ) -> None:
        """A process of this user. One argument with a blank in it is a title. `unit`: systemd's; `environ`: variables, with blanks
        between them."""
        titled = " " in arguments[0]  # setproctitle of Python changes comm too, those of other programs do not
        comm = arguments[0] if titled and "python" in exe else (exe if titled else arguments[0]).rpartition("/")[2]
        place = self.root / str(pid)
        (place / "task" / str(pid)).mkdir(parents=True)
        (place / "fd").mkdir()
        (place / "task" / str(pid) / "children").write_bytes(b"")
        (place / "stat").write_text(f"{pid} ({comm[:15]}) S {parent} {pid} {pid} 0 -1 0 {'0 ' * 10}1 0 {1000 + pid} 0 0 0\n")
        (place / "comm").write_text(f"{comm[:15]}\n")
        (place / "cmdline").write_bytes("\0".join([*arguments, ""]).encode())
        (place / "environ").write_bytes("\0".join([*environ.split(), ""]).encode())
        (place / "cgroup").write_text(f"0::/system.slice/{unit}\n" if unit else "0::/\n")
        uid = os.geteuid()
        (place / "status").write_text(f"Name:\t{comm}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        (place / "exe").symlink_to(exe)
        (place / "cwd").symlink_to(directory)
        above = self.root / str(parent) / "task" / str(parent) / "children"
        if above.exists():
            above.write_text(f"{above.read_text()}{pid} ")
