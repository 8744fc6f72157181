"""The antagonist of a starved worker: computes on one CPU. `python campaign_hog.py CPU SECONDS`.

It ends after that time. The file must keep its name, because recordings name the antagonist by it, see `truth.ANTAGONIST`.
"""

import os
import sys
import time

if __name__ == "__main__":
    os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), 0))  # not that of the recorder, which started it
    os.sched_setaffinity(0, {int(sys.argv[1])})
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        pass
