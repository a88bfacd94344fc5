"""A worker's own small server: `/metrics`, and `/healthz`, which says whether it really consumes.

A worker can be alive and connected and take nothing. So it is asked by way of the broker: a ping comes back through
the loop that delivers its tasks, and a queue that has work while it has hands free is taken from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

log = logging.getLogger("afterlive.worker")
_SILENT_SECONDS: Final = 60.0
Refresh = Callable[[], None]


class Pulse:
    """When the worker last proved that it consumes."""

    def __init__(self) -> None:
        self._beat = time.monotonic()

    def beat(self) -> None:
        self._beat = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self._beat

    @property
    def is_alive(self) -> bool:
        return self.silent_seconds < _SILENT_SECONDS


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """A scrape every few seconds is not worth a line."""


class HealthServer:
    """Serves on a port, in threads of its own, until it is stopped."""

    def __init__(self, host: str, port: int, pulse: Pulse, refresh: Iterable[Refresh] = ()) -> None:
        self._pulse = pulse
        self._refresh = tuple(refresh)
        self._metrics = make_wsgi_app()
        self._server: WSGIServer = make_server(host, port, self._answer, handler_class=_Quiet)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            for refresh in self._refresh:
                try:
                    refresh()
                except Exception as error:  # noqa: BLE001  (a gauge that cannot be read must not hide the others)
                    log.warning("a metric is not up to date: %s", error)
            return self._metrics(environ, start_response)
        alive = self._pulse.is_alive
        status, word = ("200 OK", "ok") if alive else ("503 Service Unavailable", "it does not consume")
        if path != "/healthz":
            status, word = "404 Not Found", "there are /metrics and /healthz"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{word} (last sign of life {self._pulse.silent_seconds:.1f} s ago)\n".encode()]
