"""How well the pages read, now and in an earlier version: length, and two measures of textstat.

    pip install 'textstat<0.7.5'          # later ones fetch a dictionary
    python -m benchmarks.house.readability [REVISION] [--pages 4] [--json FILE]

Takes README and those of the longest pages of docs/ in REVISION (default: HEAD) that still exist. Code, tables and headings are
left out: only sentences are measured. Flesch reading ease: higher is easier, 60 is plain English. Automated readability index:
years of school.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

from ..claims import Claims

ROOT = Path(__file__).resolve().parents[2]


def sentences(page: str) -> str:
    """The running text of a page in Markdown."""
    page = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    kept = [line for line in page.splitlines() if not re.match(r"\s*(\||#|    )", line)]
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", "\n".join(kept))
    text = re.sub(r"^\s*(?:[-*]|\d+\.) +(.*?)(?=\n\s*(?:[-*]|\d+\.) |\n\n|\Z)", r"\1.", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\.\.+", ".", re.sub(r"[`*_]", "", text))


def at(revision: str, path: str) -> str:
    """A file of a revision; "" if it had none."""
    shown = subprocess.run(["git", "show", f"{revision}:{path}"], cwd=ROOT, capture_output=True, text=True, check=False)
    return shown.stdout


def main() -> None:
    import textstat

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", nargs="?", default="HEAD", metavar="REVISION")
    parser.add_argument("--pages", type=int, default=3, help="of the longest pages (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the claims as JSON")
    asked = parser.parse_args()
    pages = [path for path in ROOT.glob("docs/*.md") if at(asked.revision, f"docs/{path.name}")]
    pages.sort(key=lambda path: -len(at(asked.revision, f"docs/{path.name}")))
    claims = Claims()
    print(f"{'page':28} {'lines':>13} {'words':>15} {'reading ease':>13} {'years of school':>15}")
    for path in (ROOT / "README.md", *pages[: asked.pages]):
        name = str(path.relative_to(ROOT))
        before, now = at(asked.revision, name), path.read_text()
        two = sentences(before), sentences(now)
        ease = [textstat.flesch_reading_ease(text) for text in two]
        years = [textstat.automated_readability_index(text) for text in two]
        lines, words = [len(text.splitlines()) for text in (before, now)], [len(text.split()) for text in (before, now)]
        pairs = (f"{a} -> {b}" for a, b in (lines, words, [round(e) for e in ease], years))
        print(f"{name:28} {next(pairs):>13} {next(pairs):>15} {next(pairs):>13} {next(pairs):>15}")
        claims.add(
            f"{name}: reading ease, not lower than in {asked.revision}", round(ease[1], 1), f">= {ease[0]:.1f}", ease[1] >= ease[0]
        )
    claims.close(asked.json)


if __name__ == "__main__":
    main()
