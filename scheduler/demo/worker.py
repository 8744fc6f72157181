"""The demo's spool worker: processes the files of a directory and ends cleanly at SIGTERM. `python worker.py DIRECTORY`.

The demo makes two workers faulty. The worker that claims `faults/leak` keeps allocating memory from then on. The one that claims
`faults/stuck` takes one more file and never finishes it.
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
"""CPU and wait of a file, in seconds. Chosen with `workload.SPOOL_HIGH`: the crest keeps about two workers busy."""

LEAK_BYTES = 1_000_000
"""Memory that a leaking worker keeps for each file. Chosen: some 10 MB a second, which shows within the demo."""

FAULTY = {"1", "2", "3"}
"""Numbers of the workers that may go wrong: those that exist from the start, so that their past is known. Chosen."""


def claim(path: Path, target: Path) -> bool:
    """Claim a file; False if another worker was faster."""
    try:
        path.rename(target)
    except FileNotFoundError:
        return False
    return True


def main(directory: Path) -> None:
    """Process files until SIGTERM."""
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
