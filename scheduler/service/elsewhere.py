"""What stands in for Linux's kernel on other machines, where nicety only observes: it knows this process, and changes nothing."""

from __future__ import annotations

from ...models.identity import ProcId
from ..hands.clock import SystemClock
from ..hands.knobs.cgroup import Cgroups
from ..hands.knobs.control import LinuxKernel
from ..hands.places import Control
from ..read.reader import UNREAD, on_linux

ONLY_LINUX = f"this machine is not Linux, whose controls are all that nicety knows: it only observes, and sizes no pools; {UNREAD}"
"""Why nothing is acted on."""


class NoKernel(LinuxKernel):
    """`kernel.Kernel` without knobs. There are no cgroups, and below /proc nothing is found."""

    def __init__(self) -> None:
        super().__init__(cgroups=Cgroups(None, None, None))

    def boot_id(self) -> str:
        """Not known; nothing that could outlive a boot is ever set."""
        return ""

    def uptime_ticks(self) -> int:
        """See `Kernel`."""
        from ..read.psutil_reader import uptime_ticks

        return uptime_ticks(SystemClock().wall())

    def itself(self) -> ProcId:
        """See `Kernel`."""
        from ..read.psutil_reader import itself

        return itself()

    def forbidden(self, control: Control) -> str:  # noqa: ARG002
        """Every control is."""
        return ONLY_LINUX


def this_kernel() -> LinuxKernel:
    """The kernel of this machine, as far as nicety can change it."""
    return LinuxKernel() if on_linux() else NoKernel()
