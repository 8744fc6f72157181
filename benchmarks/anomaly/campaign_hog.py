"""The antagonist of a starved worker: computes on one CPU. `python campaign_hog.py CPU SECONDS`.

Ends by itself after that. Must not change its name: recordings have it as the name of the antagonist, see `truth.ANTAGONIST`.
"""

import os
import sys
import time

if __name__ == "__main__":
    os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), 0))  # not the recorder's that started it
    os.sched_setaffinity(0, {int(sys.argv[1])})
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        pass
