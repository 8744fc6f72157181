"""What readers of the frame cost the daemon, and whether a reader ever takes a torn frame for a whole one.

python -m benchmarks.views.frame [--rounds 12] [--attempts 1000000] [--json FILE]

Readers race with a writer that renames as the daemon does, and with a hostile one that writes in place: a frame that is taken must
be one that was written. Then readers are killed while they read. Then a real daemon ticks ten times a second, and in turn nobody
reads its frame, and 50 processes read and decode it once a second each, as views do. What a tick costs is read from the frames
themselves (`own.cpu`, with hands and eyes, to 0.1 ms).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from nicety.scheduler.config.runtime import frames_to_read
from nicety.scheduler.frame import Count, Frame, FrameError, pack, read_frame
from nicety.scheduler.service.frame_file import FrameFile
from nicety.scheduler.testing.frames import a_frame
from nicety.scheduler.views.source import FrameSource

from ..claims import Claims

READERS = 50

TICKS = 60
"""Ticks of one turn (chosen: six seconds)."""

BOUND = 1.01
"""Cost of a tick with readers by that without (issue 26)."""

VIEW = """
import random, sys, time
from pathlib import Path
from nicety.scheduler.views.source import FrameSource
source = FrameSource([Path(sys.argv[1])])
time.sleep(random.random())
while True:
    source.look()
    time.sleep(1.0)
"""


def costs(source: FrameSource, ticks: int) -> list[float]:
    """CPU ms of each of so many ticks."""
    found: list[float] = []
    seq, cpu = -1, 0.0
    while len(found) < ticks:
        time.sleep(0.02)
        if source.look() and source.frame is not None and source.frame.seq != seq:
            if source.frame.seq == seq + 1:
                found.append((source.frame.own.cpu - cpu) * 1e3)
            seq, cpu = source.frame.seq, source.frame.own.cpu
    return found


def beside_readers(claims: Claims, rounds: int) -> dict[str, Any]:
    """A daemon with and without readers, in turn."""
    spent: dict[int, list[float]] = {0: [], READERS: []}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "nicety.toml").write_text("[daemon]\ninterval = 0.1\nbudget = 1.0\n")
        state = Path(folder) / "state"
        command = [sys.executable, "-m", "nicety.scheduler", "--config", f"{folder}/nicety.toml", "--state-dir", str(state), "run"]
        daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        views: list[subprocess.Popen[bytes]] = []
        try:
            source = FrameSource(frames_to_read("", state, os.environ))
            costs(source, 100)  # warm up
            path = next(place for place in source.places if place.exists())
            views += [subprocess.Popen([sys.executable, "-c", VIEW, str(path)]) for _ in range(READERS)]
            time.sleep(8)
            for turn in range(2 * rounds):
                some = (turn % 4) in (1, 2)  # 0, 50, 50, 0: a drift of the machine is the same for both
                for view in views:
                    view.send_signal(signal.SIGCONT if some else signal.SIGSTOP)
                costs(source, 5)
                spent[READERS if some else 0] += costs(source, TICKS)
        finally:
            for process in (*views, daemon):
                process.send_signal(signal.SIGCONT)
                process.terminate()
            for process in (*views, daemon):
                process.wait()
    shown = {many: sorted(each) for many, each in spent.items()}
    means = {many: statistics.fmean(each[: len(each) * 99 // 100]) for many, each in shown.items()}
    p99 = {many: each[len(each) * 99 // 100] for many, each in shown.items()}
    halves = [sorted(spent[0][part::2]) for part in (0, 1)]  # the same without any difference
    noise = halves[0][len(halves[0]) * 99 // 100] / halves[1][len(halves[1]) * 99 // 100]
    print(f"p99 of every other tick without readers by that of the rest: {noise:.3f}")
    for many in (0, READERS):
        print(f"CPU ms of a tick with {many} readers: mean {means[many]:.3f}, p99 {p99[many]:.2f}")
    claims.at_most("CPU of a tick with 50 readers by that with none", means[READERS] / means[0], BOUND)
    claims.at_most("p99 of the same", p99[READERS] / p99[0], BOUND)
    return {"means_ms": means, "p99_ms": p99, "noise_of_p99": noise, "ticks": {many: len(each) for many, each in shown.items()}}


def known(number: int) -> Frame:
    """A frame that says in several places which one it is; its length varies."""
    counts = [Count("decisions", f"policy {number}", "", number) for _ in range(number % 7)]
    return a_frame(seq=number, counts=counts, notes=[f"{number}"] * (number % 5), processes=a_frame().processes, incidents=[])


def race(path: str, attempts: int, results: Any) -> None:
    """Read so many times: frames that were whole, those that were refused, and those that were neither."""
    found = {"whole": 0, "refused": 0, "undetected": 0}
    wanted = {number: known(number) for number in range(100)}
    for _ in range(attempts):
        try:
            frame = read_frame(path)
        except FrameError:
            found["refused"] += 1
            continue
        if frame is not None:
            found["whole" if frame == wanted[frame.seq] else "undetected"] += 1
    results.put(found)


def write_renaming(path: str, end: Event) -> None:
    """As the daemon does, at full speed."""
    file, frames = FrameFile(Path(path), None), [pack(known(number)) for number in range(100)]
    number = 0
    while not end.is_set():
        file.write(frames[number % 100])
        number += 1


def write_in_place(path: str, end: Event) -> None:
    """As no honest writer does: over the old frame, in pieces, longer and shorter ones in turn."""
    frames, chance = [pack(known(number)) for number in range(100)], random.Random(26)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    number = 0
    while not end.is_set():
        data = frames[number % 100]
        cut = chance.randrange(len(data))
        os.pwrite(descriptor, data[:cut], 0)
        os.pwrite(descriptor, data[cut:], cut)
        if number % 3:
            os.ftruncate(descriptor, len(data))
        number += 1


def races(claims: Claims, attempts: int) -> dict[str, Any]:
    """Readers against each writer."""
    report: dict[str, Any] = {}
    context = multiprocessing.get_context("spawn")
    for name, writer in (("renames", write_renaming), ("writes in place", write_in_place)):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            path, end, results = f"{folder}/frames/frame", context.Event(), context.Queue()
            Path(path).parent.mkdir()
            Path(path).write_bytes(pack(known(0)))
            writing = context.Process(target=writer, args=(path, end))
            reading = [context.Process(target=race, args=(path, attempts // 4, results)) for _ in range(4)]
            for process in (writing, *reading):
                process.start()
            found = [results.get() for _ in reading]
            for process in reading:
                process.join()
            end.set()
            writing.join()
        sums = {key: sum(each[key] for each in found) for key in found[0]}
        print(f"a writer that {name}: {sums}")
        report[name] = sums
        claims.at_most(f"torn frames that were taken, of {attempts} reads beside a writer that {name}", sums["undetected"], 0)
        if name == "renames":
            claims.at_most("frames that were refused beside the same", sums["refused"], 0)
        else:
            claims.at_least("torn frames that were refused beside the same", sums["refused"], 1)
    return report


def kills(claims: Claims, times: int = 100) -> None:
    """Readers that are killed at any moment, beside a writer in this process."""
    chance = random.Random(26)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "frames" / "frame"
        file = FrameFile(path, None)
        file.write(pack(known(0)))
        read = "import sys\nfrom nicety.scheduler.frame import read_frame\nwhile True: read_frame(sys.argv[1])"
        before, faults = len(list(Path("/proc/self/fd").iterdir())), 0
        readers = [subprocess.Popen([sys.executable, "-c", read, str(path)]) for _ in range(4)]
        for number in range(times):
            for _ in range(chance.randrange(50)):
                file.write(pack(known(number % 100)))
            victim = readers.pop(0)
            victim.kill()
            victim.wait()
            readers.append(subprocess.Popen([sys.executable, "-c", read, str(path)]))
            file.write(pack(known(number % 100)))
            taken = read_frame(path)
            faults += file.trouble != "" or taken is None or taken.seq != number % 100
        for reader in readers:
            reader.kill()
            reader.wait()
        faults += len(list(Path("/proc/self/fd").iterdir())) != before
        faults += sorted(each.name for each in path.parent.iterdir()) != ["frame"]
    claims.at_most(f"faults after {times} readers were killed", faults, 0)


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--attempts", type=int, default=1_000_000, help="0: no races, no kills")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    claims = Claims()
    report: dict[str, Any] = {}
    if options.attempts:
        report["races"] = races(claims, options.attempts)
        kills(claims)
    if options.rounds:
        report["readers"] = beside_readers(claims, options.rounds)
    claims.close(options.json, **json.loads(json.dumps(report)))


if __name__ == "__main__":
    main()
