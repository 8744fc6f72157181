"""For how long cgroups were stopped because their CPU quota was used up. Pure."""

from __future__ import annotations

from ...models.records import Snapshot


def stopped(before: Snapshot, now: Snapshot) -> dict[str, float]:
    """Cgroup -> cores that its quota kept from it between two snapshots, for those that it stopped.

    The kernel adds up the CPUs: a cgroup whose threads were stopped on two CPUs for half of the time has 1.
    """
    then, elapsed = dict(before.quotas), now.at - before.at
    return {
        quota.cgroup: more / elapsed
        for quota in now.quotas
        if (more := quota.throttled_ns - then.get(quota.cgroup, quota.throttled_ns)) > 0
    }
