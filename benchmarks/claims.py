"""Claims of a benchmark: a figure, its bound, and whether it holds; printed as a table and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Claims:
    """Collects the claims of one run.

    >>> claims = Claims()
    >>> claims.at_most("seconds a round", 1.5, 2)
    >>> claims.rows
    [{'claim': 'seconds a round', 'value': 1.5, 'bound': '<= 2', 'holds': True}]
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def at_most(self, claim: str, value: float, bound: float) -> None:
        """The figure must not be above `bound`."""
        self.add(claim, value, f"<= {bound:g}", value <= bound)

    def at_least(self, claim: str, value: float, bound: float) -> None:
        """The figure must not be below `bound`."""
        self.add(claim, value, f">= {bound:g}", value >= bound)

    def add(self, claim: str, value: Any, bound: str, holds: bool) -> None:
        """Any other kind of claim."""
        self.rows.append({"claim": claim, "value": value, "bound": bound, "holds": bool(holds)})

    def close(self, path: Path | None, **more: Any) -> None:
        """Print the table; write the claims and `more` figures to `path` as JSON, if one is given."""
        width = max(len(row["claim"]) for row in self.rows)
        for row in self.rows:
            value = f"{row['value']:.4g}" if isinstance(row["value"], float) else str(row["value"])
            print(f"{row['claim']:<{width}}  {value:>10}  {row['bound']:<8}  {'holds' if row['holds'] else 'FALLS SHORT'}")
        if path is not None:
            report: Mapping[str, Any] = {"claims": self.rows, **more}
            path.write_text(json.dumps(report, indent=1) + "\n")
