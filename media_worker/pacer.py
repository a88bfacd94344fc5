"""Looks in at each core while encoders run on it, so that who waits behind one has it at once.

The kernel runs encoders only where nobody else would; but a thread that has just had its share may not be chosen,
though only an encoder is there to be chosen instead, and waits for the scheduler's next tick: four milliseconds where
there are 250 a second. Whoever wakes up on that core has it choose again. (Linux 6.18, kernel/sched/fair.c, pick_eevdf)
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Final


class Pacer:
    """A thread a core that wakes up and does nothing; none before it is started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._encoders = 0
        self._encoding = threading.Event()
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, every_seconds: float) -> None:
        """From a thread that does not give way itself: what it starts would not either."""
        if self._threads or every_seconds <= 0 or not hasattr(os, "sched_setaffinity"):
            return
        self._end.clear()
        self._threads = [
            threading.Thread(target=self._look_in, args=(core, every_seconds), name=f"pacer-{core}", daemon=True)
            for core in sorted(os.sched_getaffinity(0))
        ]
        for thread in self._threads:
            thread.start()

    @contextlib.contextmanager
    def pacing(self) -> Iterator[None]:
        """While an encoder runs."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def stop(self) -> None:
        """Returns when its threads have ended."""
        self._end.set()
        self._encoding.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._count(0)

    def _count(self, change: int) -> None:
        with self._lock:
            self._encoders += change
            if self._encoders:
                self._encoding.set()
            else:
                self._encoding.clear()

    def _look_in(self, core: int, every_seconds: float) -> None:
        with contextlib.suppress(OSError):  # the core was taken from us
            os.sched_setaffinity(0, {core})
            while self._encoding.wait() and not self._end.is_set():
                time.sleep(every_seconds)


PACER: Final = Pacer()
"""This process's."""
