"""The API and the embedded workers in one process, until somebody says stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from control.api.app import create_app
from control.bus.embedded import Embedded
from control.settings import Settings
from control.storage import open_store

_GRACE_SECONDS = 3


class Server(uvicorn.Server):
    """uvicorn's server; event streams, which would never end by themselves, end first."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_SECONDS
            )
        )
        self._closing: threading.Event = app.state.services.closing

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's own, which raises the signal once more at the end: that would end this process before the
        workers are stopped."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        caught = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, *args: object, **kwargs: object) -> None:
        self._closing.set()
        await super().shutdown(*args, **kwargs)  # type: ignore[arg-type]  # whatever this version of uvicorn passes


@contextmanager
def embedded_api(settings: Settings) -> Iterator[tuple[Embedded, FastAPI]]:
    """Workers that run, and an application that waits to be served."""
    with Embedded(settings) as workers:
        relay = workers.relay
        app = create_app(settings, workers.ledger, open_store(settings.storage), wake=relay.wake, refresh=relay.look)
        yield workers, app
