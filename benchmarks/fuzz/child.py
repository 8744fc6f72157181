"""One target in a process of its own, driven by atheris: the engine chooses cases by which edges of nicety's code they reach.

Not for people: `run.py` starts it. A line of JSON on standard output for each fault and for the progress; what libFuzzer says goes
to standard error. Ends when the cases are done, or with the process, if a case takes it down.
"""

from __future__ import annotations

import argparse
import base64
import json
import resource
import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nicety"]):
    from .registry import named

from .bounds import MEMORY, Bounded

EVERY = 1.0
"""Seconds between two lines of progress. Chosen."""

HANG = 20
"""Seconds of wall time after which libFuzzer ends the process: a hang inside a library. Chosen: far above the limit of CPU time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--cases", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--work", type=Path, required=True, help="corpus, and what ended the process")
    parser.add_argument("--place", type=Path, required=True, help="empty directory for the files of a case")
    arguments = parser.parse_args()
    target = named(arguments.target)
    corpus, words, done = arguments.work / "corpus", arguments.work / "words", 0
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words or (b"\0",)))  # it refuses an empty dictionary
    with Bounded(target.prepare(arguments.place)) as bounded:
        told = time.monotonic()

        def progress() -> None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            print(json.dumps({"cases": done, "peak_bytes": peak, "cpu_seconds": time.process_time()}), flush=True)

        def one(data: bytes) -> None:
            nonlocal done, told
            fault = bounded.run(data)
            done += 1
            if fault is not None:
                line = {"kind": fault.kind, "where": fault.where, "text": fault.text, "case": base64.b64encode(data).decode()}
                print(json.dumps(line), flush=True)
            if done == arguments.cases or time.monotonic() - told >= EVERY:
                told = time.monotonic()
                progress()

        options = {
            "runs": arguments.cases,
            "seed": arguments.seed,
            "max_len": target.longest,
            "timeout": HANG,
            "rss_limit_mb": MEMORY >> 20,
            "artifact_prefix": f"{arguments.work}/last-",
            "dict": words,
            "reload": 0,
            "print_final_stats": 1,
        }
        atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], one)
        atheris.Fuzz()  # does not return


def _escaped(word: bytes) -> str:
    """A word as dictionaries of libFuzzer have it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
