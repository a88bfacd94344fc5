"""What a running task knows of its own run: how long it may go on, whether it was cancelled, where progress goes, and
what is known before its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pydantic import BaseModel

from control.bus.messages import Progress
from control.errors import Cancelled, DeadlineExceeded


class Work:
    """One run of one task. Tests and the command line make their own; the base task makes one a message."""

    def __init__(
        self,
        key: str,
        limit_seconds: float,
        *,
        cancelled: threading.Event | None = None,
        reporter: Callable[[Progress], None] | None = None,
        teller: Callable[[str, BaseModel], None] | None = None,
        report_every_seconds: float = 3.5,  # each costs a transaction, beside what encodes
    ) -> None:
        self.key = key
        self.limit_seconds = limit_seconds
        self._cancelled = cancelled or threading.Event()
        self._reporter = reporter
        self._teller = teller
        self._every = report_every_seconds
        self._started = time.monotonic()
        self._reported = float("-inf")

    @property
    def seconds_left(self) -> float:
        """Until the task must have given up by itself."""
        return self.limit_seconds - (time.monotonic() - self._started)

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def check(self) -> None:
        """Raise Cancelled or DeadlineExceeded where the work must stop; call it between steps."""
        if self.cancelled:
            raise Cancelled(key=self.key)
        if self.seconds_left <= 0:
            raise DeadlineExceeded(what=self.key, seconds=self.limit_seconds)

    def within(self, seconds: float) -> Work:
        """A step that may be given up by itself: cancelled with the whole, `seconds` at most, its progress untold."""
        return Work(self.key, min(seconds, self.seconds_left), cancelled=self._cancelled)

    def report(self, progress: Progress) -> None:
        """Pass progress on, at most once every `report_every_seconds`; the last one always."""
        now = time.monotonic()
        finished = progress.done_frames >= progress.total_frames
        if self._reporter and (finished or now - self._reported >= self._every):
            self._reported = now
            self._reporter(progress)

    def tell(self, name: str, result: BaseModel) -> None:
        """Pass on, under a name of its own, what others can begin with before the task's own answer."""
        if self._teller:
            self._teller(name, result)
