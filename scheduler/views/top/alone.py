"""Reads the machine where no daemon does: a process that writes frames for the one that started it. Changes nothing, sizes nothing,
keeps nothing, and needs no rights.

    python -P -m nicety.scheduler.views.top.alone DIRECTORY STATE_DIRECTORY [CONFIGURATION]

It ends when its standard input does, so also when the live view was killed, and removes the directory of its frames.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...config.paths import Loaded
from ...frame import Own, pack
from ...interpreter import PYTHON, environment, load_numpy

MODULE = "nicety.scheduler.views.top.alone"

SESSION = "alone"
"""What stands for a session in its frames."""

ON_TMPFS = Path("/dev/shm")  # noqa: S108 - a new private directory is made there


class Alone:
    """The process that reads, as the one that started it sees it."""

    def __init__(self, loaded: Loaded, stores: Path, variables: Mapping[str, str]) -> None:
        own = variables.get("XDG_RUNTIME_DIR", "")
        above = next((place for place in (Path(own) if own else None, ON_TMPFS) if place and os.access(place, os.W_OK)), None)
        self._directory = Path(tempfile.mkdtemp(prefix="nicety-top-", dir=above))
        self.path = self._directory / "frame"
        """The file of its frames."""
        where = [str(self._directory), str(stores), *([] if loaded.path is None else [str(loaded.path.absolute())])]
        self._process = subprocess.Popen(
            [*PYTHON, "-m", MODULE, *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(variables),
            start_new_session=True,  # the end of the terminal is not its end: it still has its directory to remove
        )
        self._said = ""

    @property
    def trouble(self) -> str:
        """Why it has ended; "": it runs."""
        if self._process.poll() is None or self._said:
            return self._said
        assert self._process.stderr is not None
        lines = self._process.stderr.read().decode("utf-8", "backslashreplace").strip().splitlines()
        self._said = f"what reads the machine has ended: {lines[-1] if lines else self._process.returncode}"
        return self._said

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """Read and write until standard input ends."""
    directory = Path(arguments[0])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the view
    try:
        _observe(directory, Path(arguments[1]), arguments[2] if len(arguments) > 2 else None)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _observe(directory: Path, stores: Path, config_file: str | None) -> None:
    load_numpy()
    import msgspec

    from .... import __version__
    from ...config.paths import load_config
    from ...explain.frames import Recent, frame_of
    from ...hands.clock import SystemClock
    from ...read.facts import probe
    from ...read.reader import open_source
    from ...service.elsewhere import this_kernel
    from ...service.frame_file import FrameFile
    from ...service.live_models import models_in_use
    from ...service.own.cost import own_cpu_ns, resident_bytes

    clock = SystemClock()
    config = msgspec.structs.replace(load_config(config_file, os.environ, os.geteuid()).config, pools={})
    observer = models_in_use(config, stores / "models", lambda *_: None).observer(config, probe().abilities, this_kernel().itself())
    observer.shown = True
    source = open_source(config.daemon.reader, slow_every=config.daemon.slow_every)
    file, recent, name = FrameFile(directory / "frame", None), Recent(), socket.gethostname()
    interval = config.daemon.interval
    started = due = clock.monotonic()
    while True:
        at = clock.monotonic()
        snapshot = source.read(at, clock.wall(), ())
        tick = observer.tick(snapshot, (), False)
        own = Own(
            pid=os.getpid(),
            version=__version__,
            mode="observe",
            scope="observing",
            acting_on=[],
            spared=[],
            cannot="",
            paused=False,
            session=SESSION,
            interval=interval,
            running=round((at - started) / 1e9, 3),
            ticks=tick.seq + 1,
            missed=0,
            cpu=round(own_cpu_ns() / 1e9, 4),
            memory=resident_bytes(),
            budget=config.daemon.budget,
            reduced=[],
        )
        file.write(pack(frame_of(tick, own, name, config, recent, (), (), observer.made_of())))
        # The second tick comes soon: rates are known from then on, and somebody waits for them.
        due += round((min(interval, 0.25) if tick.seq == 0 else interval) * 1e9)
        due = max(due, clock.monotonic())
        while (left := due - clock.monotonic()) > 0:
            ready, _, _ = select.select([sys.stdin], [], [], left / 1e9)
            if ready and not os.read(sys.stdin.fileno(), 1024):
                return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
