"""Cancelled replays, as this process knows them: what runs stops, what is queued does not start.

The word comes as a broadcast (`control.bus.broadcast`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

_REMEMBERED: Final = 10_000


class Cancellations:
    """Which runs of which replays are cancelled, and the events running work looks at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, int] = OrderedDict()
        self._events: dict[tuple[str, int], threading.Event] = {}
        self._halted = False
        self.hands_back = False
        """Where the process ends: whether its work goes back to the broker, for another worker."""

    def watch(self, replay_id: str, run: int) -> threading.Event:
        """The event that is set when this run is cancelled; set already where it was."""
        with self._lock:
            event = self._events.setdefault((replay_id, run), threading.Event())
            if self._halted or self._runs.get(replay_id, 0) >= run:
                event.set()
            if len(self._events) > _REMEMBERED:
                self._events.pop(next(iter(self._events)))
            return event

    def cancel(self, replay_id: str, run: int) -> None:
        """This run and those before it are cancelled."""
        with self._lock:
            self._runs[replay_id] = max(run, self._runs.get(replay_id, 0))
            self._runs.move_to_end(replay_id)
            if len(self._runs) > _REMEMBERED:
                self._runs.popitem(last=False)
            for (key, number), event in self._events.items():
                if key == replay_id and number <= run:
                    event.set()

    def halt(self, halted: bool = True, *, hand_back: bool = False) -> None:
        """This process ends: nothing goes on in it, nothing starts; the replays themselves are not cancelled."""
        with self._lock:
            self._halted = halted
            self.hands_back = halted and hand_back
            for event in self._events.values() if halted else ():
                event.set()
            self._events.clear()


cancellations = Cancellations()
