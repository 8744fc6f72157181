"""The demo's batch work: processes that use a CPU without end and count their rounds in a shared file.

`python -m nicety.scheduler.demo.hog FILE COUNT` starts COUNT of them in its own process group. A signal to the group ends them all.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from pathlib import Path

ROUND = 20_000  # additions of a round, chosen: about a millisecond


def burn(path: Path, slot: int) -> None:
    """Count rounds in the 8 bytes at `slot` of the file until ended by a signal."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        count = 0
        while True:
            total = 0
            for number in range(ROUND):
                total += number
            count += 1
            struct.pack_into("<Q", shared, slot * 8, count)


def main(path: Path, count: int) -> None:
    """Become hog 0 and start the others."""
    for slot in range(1, count):
        if os.fork() == 0:
            burn(path, slot)
    burn(path, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
