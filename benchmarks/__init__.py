"""Measurements, in folders by what they measure. `README.md` lists the commands: `python -m benchmarks.FOLDER.NAME`."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout: where `python -m benchmarks...` works, for children that a benchmark starts."""
