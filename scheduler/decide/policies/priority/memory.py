"""What the priority policy remembers. Pure."""

from __future__ import annotations

import msgspec

from ..policy import Memory
from .contention import ContentionMemory
from .held import Held
from .pairs import Pairs
from .slices import Slices
from .strikes import Strikes
from .swarms import Swarms
from .turns import Turns


class PriorityMemory(Memory):
    """What the policy remembers."""

    contention: ContentionMemory = msgspec.field(default_factory=ContentionMemory)
    held: dict[str, Held] = msgspec.field(default_factory=dict)  # by `Held.key`
    strikes: Strikes = msgspec.field(default_factory=Strikes)
    pairs: Pairs = msgspec.field(default_factory=Pairs)
    swarms: Swarms = msgspec.field(default_factory=Swarms)
    turns: Turns = msgspec.field(default_factory=Turns)
    slices: Slices = msgspec.field(default_factory=Slices)
