"""Who runs only where nobody else of its control group would: SCHED_IDLE, which what wakes up need not wait for.

Not even the lowest niceness does that: a thread at 19 keeps its core until the scheduler's next tick, which is four
milliseconds of a kernel with 250 a second.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from media_worker.long_slices import take_long_slices

_PROC: Final = Path("/proc")


def give_way(pid: int = 0) -> None:
    """Have a process give way, or the thread that asks, and what either starts from then on; and take turns seldom."""
    # First: nobody but root may ask for it once idle.
    take_long_slices(pid)
    with contextlib.suppress(OSError, AttributeError):  # it has ended, it may not be done, this is not Linux
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def give_way_no_more(pid: int) -> None:
    """Have all threads of a process run as others do again, where this user may: root, as the kernel has it."""
    with contextlib.suppress(OSError, AttributeError):
        for thread in (_PROC / str(pid) / "task").iterdir():
            os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))
