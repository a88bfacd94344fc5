"""Everything in one process: broker, workers, relay and clock, each in threads. No server to install.

The in-process broker forgets all at the end; the ledger does not, and the reconciler puts back what was unfinished.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, NoReturn

from celery import Celery
from celery.exceptions import WorkerShutdown
from celery.worker import WorkController
from celery.worker.control import control_command

from control import settings as process_settings
from control import telemetry
from control.bus import names
from control.bus.app import MEDIA, NOTIFY, PIPELINES, make_app
from control.bus.beat import Clock
from control.bus.cancel import cancellations
from control.bus.capabilities import report_of
from control.bus.clerk import Clerk
from control.bus.context import name_node
from control.bus.heartbeat import Heartbeat
from control.bus.memory import Channel, Transport
from control.bus.relay import Relay
from control.errors import ConfigurationError
from control.ledger import nodes
from control.ledger.engine import open_ledger
from control.settings import Settings

log = logging.getLogger("afterlive.embedded")
NODE: Final = "embedded"
"""What its media worker is called."""
_SCHEDULE: Final = "pipelines.schedule"
_FAST_THREADS: Final = 4
_START_SECONDS: Final = 15.0
_END: Final = "end_worker"
_LOOK_AT_CLOCK_SECONDS: Final = 5.0


class Embedded:
    """The platform's back end in this process, working for `settings`. A context manager.

    `own_ledger`: the ledger is this very program's alone, and is made without migrations.
    """

    def __init__(
        self, settings: Settings, modules: Sequence[str] = (PIPELINES, MEDIA, NOTIFY), *, own_ledger: bool = False
    ) -> None:
        if settings.bus.broker_url.get_secret_value() != "memory://":
            raise ConfigurationError(setting="AFTERLIVE_BUS_BROKER_URL", reason="embedded mode brings its own broker")
        process_settings.use(settings)
        self.settings = settings
        self.ledger = open_ledger(settings.ledger.url)
        self._modules = modules
        self._own_ledger = own_ledger
        schedule = importlib.import_module(_SCHEDULE).SCHEDULE if PIPELINES in modules else {}
        self.app: Celery = make_app(settings.bus, modules, schedule)
        self.relay = Relay(self.ledger, self.app)
        self.clerk = Clerk(self.app, self.ledger)
        self._workers: list[threading.Thread] = []
        self._heartbeat: Heartbeat | None = None
        self._clock = Clock(self.app, _LOOK_AT_CLOCK_SECONDS)
        self._beat = threading.Thread(target=self._clock.run, name="beat", daemon=True)

    def start(self) -> None:
        """Returns once the workers consume."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        if self._own_ledger:
            self.ledger.create()
        else:
            self.ledger.upgrade()
        cancellations.halt(False)
        _forget_messages()
        # Callbacks made in worker threads would otherwise go to Celery's own default application.
        self.app.set_default()
        self.app.loader.import_default_modules()
        self._start_worker("fast", [names.HIGH, names.DEFAULT], _FAST_THREADS)
        # All there is: what was planned for a GPU is told here that there is none, and planned again.
        name_node(NODE)
        self._start_worker("media", [names.LOW, *names.GPU_QUEUES.values()], self.settings.media.concurrency)
        self.clerk.start()
        self._report()
        # Before the relay, which puts on the bus at once what waits: that is not lost, and must not look as if it were.
        self._call("pipelines.reconcile", "reconcile", bus_is_empty=True)
        self.relay.start()
        self._beat.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Ends the workers; what runs is cut off, and goes on at the next start."""
        cancellations.halt()
        self._clock.stop()
        self.clerk.stop()
        if self._heartbeat:
            self._heartbeat.stop()
        self.relay.stop()
        if self._workers:
            self.app.control.broadcast(_END, reply=False)
        deadline = time.monotonic() + timeout_seconds
        for thread in self._workers:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("%s still works on something that does not stop", thread.name)
        self._workers.clear()

    def __enter__(self) -> Embedded:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_worker(self, name: str, queues: list[str], concurrency: int) -> None:
        telemetry.WORKER_SLOTS.labels(name).set(concurrency)
        worker: Any = WorkController(
            app=self.app,
            hostname=f"{name}@{NODE}",
            pool_cls="threads",
            concurrency=concurrency,
            queues=queues,
            loglevel=logging.WARNING,
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
        )
        thread = threading.Thread(target=worker.start, name=f"worker-{name}", daemon=True)
        thread.start()
        self._workers.append(thread)
        deadline = time.monotonic() + _START_SECONDS
        while not (worker.consumer and worker.consumer.task_consumer):
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError(f"the {name} worker did not start")
            time.sleep(0.005)

    def _report(self) -> None:
        """Where the settings name encoders or devices, this machine is a node like any other. Else all is left to the
        processor: to try devices takes time, each time a program starts."""
        media = self.settings.media
        if not media.model_fields_set & {"encoders", "devices"}:
            return
        report = report_of(self.settings)
        if report is None:
            return
        with self.ledger.write() as session:
            nodes.heard(session, report, NODE)
        self._heartbeat = Heartbeat(self.app, NODE, lambda: report_of(self.settings), media.report_seconds)
        self._heartbeat.start()

    def _call(self, module: str, function: str, **arguments: Any) -> None:
        """A function of another package, by name: this one imports none of them."""
        if PIPELINES in self._modules:
            called: Callable[..., Any] = getattr(importlib.import_module(module), function)
            called(self.ledger, self.settings.media, **arguments)


@control_command(name=_END)
def _on_end(_state: Any) -> NoReturn:
    """Ends the worker in its own thread, and at once: told from outside it would first look at its queues for long."""
    raise WorkerShutdown(0)


def _forget_messages() -> None:
    """Queues of the in-process broker are the process's, not the application's: start with none."""
    Channel.queues.clear()
    Transport.global_state.clear()
