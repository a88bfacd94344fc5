"""A media worker says what it can, again and again: who says nothing is gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from celery import Celery

from control.bus import names
from control.bus.messages import NodeReport
from control.bus.publish import send
from control.errors import AfterliveError

log = logging.getLogger("afterlive.worker")
_END_SECONDS: Final = 5.0


class Heartbeat:
    """A thread that reports every `every_seconds`, and says good-bye when it is stopped.

    `look` is what the node can now, None where that is not known. A worker is known by its own name, as there may be
    several on one machine.
    `changed` is called with each report, so that the worker takes from the queues it is good for.
    """

    def __init__(
        self,
        app: Celery,
        name: str,
        look: Callable[[], NodeReport | None],
        every_seconds: float,
        changed: Callable[[NodeReport], None] = lambda _: None,
    ) -> None:
        self._app = app
        self._name = name
        self._look = look
        self._every = every_seconds
        self._changed = changed
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(_END_SECONDS)
        self._send({"node": self._name})

    def beat(self) -> bool:
        """Report once; whether it is on the bus. One that is lost is made good by the next."""
        report = self._look()
        if report is None:
            return False
        self._changed(report)
        return self._send({"node": self._name, "report": report.model_dump(mode="json")})

    def _send(self, payload: dict[str, object]) -> bool:
        try:
            send(self._app, names.NODE_REPORT, payload)
        except AfterliveError as error:
            log.warning("the report of this node was not sent: %s", error.detail)
            return False
        return True

    def _loop(self) -> None:
        while True:
            self.beat()
            if self._stopped.wait(self._every):
                return
