"""Cases without an engine: seeds and random mutations of them. For the short run in CI, where cases must be the same each time."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .bounds import Bounded, Fault
from .target import Target, workplace

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
"""Bytes at which signs, lengths and encodings change."""


def cases(target: Target, number: int, seed: int) -> Iterator[bytes]:
    """`number` cases: first the seeds, then mutations of seeds."""
    chance = random.Random(f"{target.name} {seed}")
    seeds = list(target.seeds())
    for n in range(number):
        yield seeds[n] if n < len(seeds) else mutated(chance.choice(seeds), target, chance)


def mutated(case: bytes, target: Target, chance: random.Random) -> bytes:
    """A case after some random changes."""
    data = bytearray(case)
    for _ in range(chance.randint(1, 5)):
        at = chance.randint(0, len(data))
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(data):
                data[at] = chance.choice(INTERESTING)
            case 2:
                data[at:at] = chance.randbytes(chance.randint(1, 8))
            case 3:
                del data[at : at + chance.randint(1, 8)]
            case 4:
                data[at:at] = chance.choice(target.words or (b"\0",))
            case _:
                first = chance.randint(0, len(data))
                data[at:at] = data[first : first + chance.randint(1, 64)]
    return bytes(data[: target.longest])


def run(target: Target, number: int, seed: int) -> list[Fault]:
    """The faults of these cases, each once."""
    found: dict[tuple[str, str], Fault] = {}
    with workplace() as place, Bounded(target.prepare(place), memory=None) as bounded:
        for case in cases(target, number, seed):
            fault = bounded.run(case)
            if fault is not None:
                found.setdefault((fault.kind, fault.where), fault)
    return list(found.values())
