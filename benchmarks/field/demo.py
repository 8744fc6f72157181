"""Runs the demo several times and reports each of its claims with the worst figure of all runs.

    python -m benchmarks.field.demo [--runs 3] [--json FILE]

Each run takes about three minutes and loads two CPUs fully. `nicety replay` of each run's decision log is checked too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..claims import Claims


def run(place: Path) -> dict[str, Any]:
    """Run the demo once: its report, and the exit codes of demo and replay."""
    nicety = [sys.executable, "-m", "nicety.scheduler"]
    code = subprocess.run([*nicety, "demo", "--dir", str(place / "d"), "--json", str(place / "r")], check=False).returncode
    again = subprocess.run([*nicety, "--state-dir", str(place / "d" / "state"), "replay"], check=False).returncode
    report: dict[str, Any] = json.loads((place / "r").read_text())
    return {**report, "exit": code, "replay": again}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of the demo (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the claims to this file")
    options = parser.parse_args()
    reports = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as place:
            reports.append(run(Path(place)))
    claims = Claims()
    for number, first in enumerate(reports[0]["claims"]):
        rows = [report["claims"][number] for report in reports]
        worst = next((row for row in rows if not row["holds"]), rows[-1])
        held = sum(row["holds"] for row in rows)
        claims.add(f"{first['claim']}, in {held} of {len(rows)} runs", worst["value"], first["bound"], held == len(rows))
    claims.add("exit codes of demo and replay", [(report["exit"], report["replay"]) for report in reports], "all 0", True)
    claims.rows[-1]["holds"] = all(report["exit"] == report["replay"] == 0 for report in reports)
    claims.close(options.json, runs=reports)


if __name__ == "__main__":
    main()
