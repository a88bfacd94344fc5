"""Encoders that take turns seldom: what one has in a core's caches is not there any more once another had its turn.

Since Linux 6.12 a thread may ask for slices of its own length; who wakes up beside an idle one does not wait for its
end. Before it, as where nobody takes turns, nothing changes. (Linux, kernel/sched/syscalls.c, __setparam_fair)
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from typing import Final

_SLICE_NANOSECONDS: Final = 25_000_000  # the kernel's own are about 3 ms; longer ones than these gain no more
# glibc has no function for it before 2.41. The number is the processor's.
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
_SCHED_ATTR: Final = struct.Struct("IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period


def take_long_slices(pid: int) -> None:
    """Of a process that has just been started, or of the thread that asks (0), and of what either starts from then on.

    It is not idle after it: that is to be asked for next, and keeps them."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or platform.system() != "Linux":
        return
    try:
        nice = os.getpriority(os.PRIO_PROCESS, pid or threading.get_native_id())
    except OSError:  # it has ended
        return
    wanted = _SCHED_ATTR.pack(_SCHED_ATTR.size, os.SCHED_OTHER, 0, nice, 0, _SLICE_NANOSECONDS, 0, 0)
    # Where it is refused, slices are as long as everybody's.
    ctypes.CDLL(None).syscall(number, pid, wanted, 0)
