"""Who runs only where nobody else of its control group would: SCHED_IDLE, which what wakes up need not wait for.

Not even the lowest niceness does that: a thread at 19 keeps its core until the scheduler's next tick, which is four
milliseconds of a kernel with 250 a second.
"""

from __future__ import annotations

import contextlib
import os


def give_way(pid: int = 0) -> None:
    """Have a process give way, or the thread that asks, and what either starts from then on."""
    with contextlib.suppress(OSError, AttributeError):  # it has ended, it may not be done, this is not Linux
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
