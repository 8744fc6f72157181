"""A soak: 20 minutes at 5 Hz while 50 short processes a second come and go. Memory and descriptors must stay level.

python -m benchmarks.cost.soak [--minutes 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ..claims import Claims

CONFIG = """
[daemon]
interval = 0.2
[store]
trace_bytes = 67108864
decision_bytes = 67108864
[models]
behaviour = false
[groups.shortlived]
program = "true"
class = "batch"
"""

SPAWN = """
import os, time
due = time.monotonic()
while True:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    due += 0.02
    time.sleep(max(0.0, due - time.monotonic()))
"""


def look(pid: int) -> tuple[float, int, int]:
    """(resident MiB, the daemon's own descriptors, its descriptors of processes that have ended).

    The reader keeps two files open for each process of the machine, so the total depends on what else runs.
    """
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    own = ended = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = link.readlink().parts
        except OSError:
            continue  # closed meanwhile
        if target[:2] != ("/", "proc") or not target[2].isdecimal():
            own += 1
        elif not Path(*target[:3]).exists():
            ended += 1
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), own, ended


def status(state: Path) -> dict[str, Any]:
    """The answer of `nicety status`."""
    command = [sys.executable, "-m", "nicety.scheduler", "status", "--json", "--state-dir", str(state)]
    answer: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        state, config = Path(place) / "state", Path(place) / "nicety.toml"
        config.write_text(CONFIG)
        spawner = subprocess.Popen([sys.executable, "-c", SPAWN], start_new_session=True)
        command = [sys.executable, "-m", "nicety.scheduler", "run", "--act", "--state-dir", str(state), "--config", str(config)]
        daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            time.sleep(60)  # windows fill, caches settle
            memory, descriptors, leftover = [], [], []
            end = time.monotonic() + options.minutes * 60 - 60
            while time.monotonic() < end:
                time.sleep(10)
                mib, files, ended = look(daemon.pid)
                memory.append(mib)
                descriptors.append(files)
                leftover.append(ended)
                print(f"{len(memory) * 10 + 60:>5} s  {mib:6.2f} MiB  {files} descriptors, {ended} of ended processes", flush=True)
            answer = status(state)
        finally:
            daemon.send_signal(signal.SIGTERM)
            code = daemon.wait(30)
            os.killpg(spawner.pid, signal.SIGKILL)
            spawner.wait()
    sixth = max(len(memory) // 6, 1)
    grown = sum(memory[-sixth:]) / sixth - sum(memory[:sixth]) / sixth
    lost = answer["missed_ticks"] + answer["trace_ticks_dropped"] + answer["decision_ticks_dropped"]
    claims = Claims()
    claims.at_most("resident memory grown from the first to the last sixth, MiB", grown, 2)
    claims.at_most("resident memory, most, MiB", max(memory), 64)
    claims.at_most("descriptors of its own, most minus least", max(descriptors) - min(descriptors), 2)
    claims.at_most("descriptors of ended processes, most", max(leftover), 8)
    claims.add("ticks lost (missed, or not written)", lost, "0", lost == 0)
    claims.add("exit code of the daemon", code, "0", code == 0)
    claims.close(
        options.json, ticks=answer["ticks"], cpu_seconds=answer["own_cpu_seconds"], memory_mib=memory, descriptors=descriptors
    )


if __name__ == "__main__":
    main()
