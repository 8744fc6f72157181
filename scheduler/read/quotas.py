"""Reads for how long cgroups were stopped because their CPU quota was used up. Knows files below a mount; must not know processes.

A quota counts for everything below it, so each ancestor of a process's cgroup is read too. Whether a cgroup has a quota is read
when it is first seen, and every `LOOK_TICKS`. Only those that have one are read each tick.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from ...models.records import Quota
from ..hands.knobs.cgroup import Cgroups, find

LOOK_TICKS = 30
"""Reads after which a cgroup is checked again for a quota (chosen): one may have been set. Each read checks an equal share."""


class Quotas:
    """Reads the quotas of cgroups. What cannot be read has none: errors of the file system are never raised."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._v1 = cgroups.shares is not None
        self._mount = cgroups.shares or cgroups.weight
        self._latest: Collection[str] = ()  # the cgroups of the last read
        self._places: dict[str, Path] = {}  # cgroup -> its directory: of all that were passed in, and their ancestors
        self._order: list[str] = []  # the cgroups in `_places`, sorted
        self._limited: set[str] = set()
        self._share = 0  # which share of `_order` is checked next

    @classmethod
    def of(cls, root: Path) -> Quotas:
        """Quotas of the hierarchies mounted where the procfs at `root` belongs; of none if it does not say."""
        try:
            return cls(find((root / "self/mountinfo").read_text()))
        except (OSError, UnicodeDecodeError):
            return cls(Cgroups(None, None, None))

    def read(self, cgroups: Collection[str]) -> tuple[Quota, ...]:
        """The quotas that these cgroups and their ancestors have now, sorted. Paths are those in the cpu hierarchy.

        The same object as last time is taken as the same cgroups.
        """
        if self._mount is None:
            return ()
        if cgroups is not self._latest:
            self._take(cgroups)
        self._share = (self._share + 1) % LOOK_TICKS
        for cgroup in self._order[self._share :: LOOK_TICKS]:
            self._look(cgroup)
        found = ((cgroup, self._throttled(cgroup)) for cgroup in sorted(self._limited))
        return tuple(Quota(cgroup, throttled) for cgroup, throttled in found if throttled is not None)

    def _take(self, cgroups: Collection[str]) -> None:
        self._latest = cgroups
        every = {str(path) for cgroup in set(cgroups) for path in (PurePosixPath(cgroup), *PurePosixPath(cgroup).parents)}
        self._limited &= every
        for cgroup in self._places.keys() - every:
            del self._places[cgroup]
        assert self._mount is not None
        for cgroup in every - self._places.keys():
            directory = self._mount.directory(cgroup)
            if directory is not None:
                self._places[cgroup] = Path(directory)
                self._look(cgroup)
        self._order = sorted(self._places)

    def _look(self, cgroup: str) -> None:
        """Check whether it has a quota."""
        try:
            if self._v1:
                limited = int((self._places[cgroup] / "cpu.cfs_quota_us").read_bytes()) >= 0
            else:
                limited = not (self._places[cgroup] / "cpu.max").read_bytes().startswith(b"max")
        except (OSError, ValueError):
            limited = False
        if limited:
            self._limited.add(cgroup)
        else:
            self._limited.discard(cgroup)

    def _throttled(self, cgroup: str) -> int | None:
        """ns since the cgroup was made; None if that cannot be read."""
        name, unit = (b"throttled_time", 1) if self._v1 else (b"throttled_usec", 1000)
        try:
            for line in (self._places[cgroup] / "cpu.stat").read_bytes().splitlines():
                key, _, value = line.partition(b" ")
                if key == name:
                    return int(value) * unit
        except (OSError, ValueError):
            pass
        return None
