"""Hands for tests and benchmarks that have a ledger of their own."""

from __future__ import annotations

from typing import Any

from ..act.sentries import sentries_of_this_process
from ..config.paths import Loaded, Paths
from ..daemon import Daemon, own_hands
from ..hands.kernel import Clock, Kernel
from ..hands.ledger import Ledger
from ..hands.own import OwnHands


def hands_with(ledger: Ledger, kernel: Kernel, clock: Clock) -> OwnHands:
    """Hands in this process that use this open ledger, without bounds of a configuration."""
    hands = OwnHands("", kernel, clock)
    hands.use(ledger)
    return hands


def daemon_in_process(loaded: Loaded, paths: Paths, clock: Clock, **options: Any) -> Daemon:
    """A daemon that has its hands in this process. The caller must lock the state directory."""
    return Daemon(loaded, paths, own_hands(loaded.config, paths), sentries_of_this_process(paths.root), clock, **options)
