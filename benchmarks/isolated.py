"""A process namespace of its own for a command that starts processes: nothing outside is seen, and nothing of it stays."""

from __future__ import annotations

import os


def isolated() -> list[str]:
    """The command in front of another one that gives it a process namespace of its own, in which a shell reaps orphans.

    When this process dies, all in the namespace die with it.
    """
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    end = ["setpriv", "--pdeathsig", "KILL"]
    return [*end, "unshare", *user, "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", '"$@"; exit $?', "sh"]
