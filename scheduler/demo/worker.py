"""The demo's spool worker: works off files of a directory, ends cleanly at SIGTERM. `python worker.py DIRECTORY`.

It can go wrong in two ways, for the demo's sake: the worker that claims `faults/leak` keeps allocating memory from then on, the one
that claims `faults/stuck` takes one more file and never finishes it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

CPU_SECONDS = 0.02
WAIT_SECONDS = 0.06
LEAK_BYTES = 1_000_000  # a file
FAULTY = {"1", "2", "3"}  # workers that may go wrong: those that are there from the start


def claim(path: Path, target: Path) -> bool:
    """Take a file for ourselves; False if somebody else was faster."""
    try:
        path.rename(target)
    except FileNotFoundError:
        return False
    return True


def main(directory: Path) -> None:
    """Work until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    new, work, faults = directory / "new", directory / "work", directory / "faults"
    leaking, kept = False, list[bytearray]()
    faulty = os.environ.get("NICETY_WORKER", "1") in FAULTY
    while not stop.is_set():
        waiting = sorted(new.iterdir())
        mine = next((target for path in waiting if claim(path, target := work / f"{os.getpid()}-{path.name}")), None)
        if mine is None:
            time.sleep(0.05)
            continue
        if faulty and not leaking and claim(faults / "stuck", faults / f"stuck-{os.getpid()}"):
            while not stop.wait(3600):
                pass
        leaking = leaking or (faulty and claim(faults / "leak", faults / f"leak-{os.getpid()}"))
        if leaking:
            kept.append(bytearray(os.urandom(1) * LEAK_BYTES))
        end = time.thread_time() + CPU_SECONDS
        while time.thread_time() < end:
            pass
        time.sleep(WAIT_SECONDS)
        mine.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
