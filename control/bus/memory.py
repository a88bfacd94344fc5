"""The in-process broker: kombu's, with consumers that are woken instead of looking again and again.

What looks fifty times a second, in each of several workers, takes from the encoders what it looks for.
"""

from __future__ import annotations

import threading
import time
from queue import Empty
from typing import Any, Final

from kombu.transport import TRANSPORT_ALIASES, memory

_LONGEST_SECONDS: Final = 0.5  # then a consumer looks all the same


class _Bell:
    """Rings for all who wait; one that rang since `heard` is not missed."""

    def __init__(self) -> None:
        self._rung = threading.Condition()
        self.count = 0
        self.alarms = 0

    def ring(self, *, alarm: bool = False) -> None:
        with self._rung:
            self.count += 1
            self.alarms += alarm
            self._rung.notify_all()

    def wait(self, heard: int, seconds: float) -> None:
        with self._rung:
            self._rung.wait_for(lambda: self.count != heard, seconds)


_bell = _Bell()


class Channel(memory.Channel):
    """Rings where a message came, and where a consumer that had its fill may take the next."""

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        super()._put(queue, message, **kwargs)
        _bell.ring()

    def _put_fanout(self, exchange: str, message: Any, routing_key: str | None = None, **kwargs: Any) -> None:
        super()._put_fanout(exchange, message, routing_key, **kwargs)
        _bell.ring()

    def basic_ack(self, *args: Any, **kwargs: Any) -> None:
        super().basic_ack(*args, **kwargs)
        _bell.ring()

    def basic_reject(self, *args: Any, **kwargs: Any) -> None:
        super().basic_reject(*args, **kwargs)
        _bell.ring()


class Transport(memory.Transport):
    """`memory://`"""

    Channel = Channel

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Deliver one message. Raises TimeoutError where none came for `timeout` seconds, or all are to look up."""
        alarms = _bell.alarms
        give_up = None if timeout is None else time.monotonic() + timeout
        channels: Any = self.cycle
        while True:
            heard = _bell.count
            try:
                channels.get(self._deliver, timeout=timeout)
            except Empty:
                left = _LONGEST_SECONDS if give_up is None else give_up - time.monotonic()
                if left <= 0 or _bell.alarms != alarms:
                    raise TimeoutError from None
                _bell.wait(heard, min(left, _LONGEST_SECONDS))
            else:
                return


def look_up() -> None:
    """Have every consumer that waits see at once whether it is to stop."""
    _bell.ring(alarm=True)


def install() -> None:
    """Make this what `memory://` is in this process."""
    TRANSPORT_ALIASES["memory"] = f"{__name__}:Transport"
