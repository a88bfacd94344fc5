"""One tier's worker on RabbitMQ: Celery's, with what belongs to it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from celery import Celery, signals

from control import telemetry
from control.bus.app import TIERS, make_app
from control.bus.cancel import cancellations
from control.bus.capabilities import report_of
from control.bus.context import name_node
from control.bus.declare import missing
from control.bus.health import HealthServer, Pulse
from control.bus.heartbeat import Heartbeat
from control.bus.messages import NodeReport
from control.bus.probe import Probe
from control.bus.publish import publisher_of
from control.bus.routing import queues_of
from control.bus.topology import on_rabbitmq
from control.errors import ConfigurationError
from control.settings import Settings

log = logging.getLogger("afterlive.worker")
# Commerce waits for others (gateways, mail servers, the database) most of its time.
_THREADS: Final = 16
_SWITCH_SECONDS: Final = 0.0005


class Worker:
    """Runs in the main thread, until SIGTERM or SIGINT. Raises ConfigurationError where the broker is the embedded
    one, or has no queues yet."""

    def __init__(
        self, settings: Settings, tier: str, name: str, *, concurrency: int | None = None, port: int | None = None
    ) -> None:
        if not on_rabbitmq(settings.bus.broker_url.get_secret_value()):
            reason = "embedded mode brings its own workers ('afterlive up'); set amqp://… or amqps://…"
            raise ConfigurationError(setting="AFTERLIVE_BUS_BROKER_URL", reason=reason)
        self._settings = settings
        self._tier = tier
        self._media = tier == "media"
        self._name = name
        self._concurrency = concurrency or (settings.media.concurrency if self._media else _THREADS)
        self._port = settings.worker.port if port is None else port
        self.app: Celery = make_app(settings.bus, TIERS[tier].modules, tier=tier)
        self._ends: list[Callable[[], None]] = []
        self._queues = list(TIERS[tier].queues)
        """What it takes from now."""
        self._worker: Any = None

    def run(self) -> None:
        """Returns when the worker has ended; its exit status is Celery's."""
        self._refuse_without_queues()
        self.app.set_default()
        pulse = Pulse()
        refresh = self._start_helpers()
        if self._port:
            self._ends.append(self._serve(pulse, refresh))
        signals.setup_logging.connect(_leave_logs_alone, weak=False)
        signals.worker_ready.connect(self._ready, weak=False)
        os.nice(TIERS[self._tier].nice)
        if not self._media:
            # Sixteen threads and a loop share one interpreter; its default of 5 ms is longer than most tasks take.
            sys.setswitchinterval(_SWITCH_SECONDS)
        if self._media:
            # What runs goes back to the broker at once, for another node; a fast task is finished.
            signals.worker_shutting_down.connect(_hand_back, weak=False)
            name_node(self._name)
            self._queues[:] = queues_of(self._look())
        try:
            worker: Any = self.app.Worker(
                hostname=f"{self._tier}@{self._name}",
                pool="threads",
                concurrency=self._concurrency,
                queues=list(self._queues),
                loglevel=logging.WARNING,
                without_mingle=True,
                without_gossip=True,
                quiet=True,
            )
            self._worker = worker
            probe = Probe(self.app, worker, self._queues, pulse)
            probe.start()
            self._ends.append(probe.stop)
            if self._media:
                every = self._settings.media.report_seconds
                heartbeat = Heartbeat(self.app, self._name, self._look, every, self._take_from)
                heartbeat.start()
                self._ends.append(heartbeat.stop)
            worker.start()
        finally:
            for end in reversed(self._ends):
                end()
            publisher_of(self.app).close()

    def _ready(self, **_: Any) -> None:
        telemetry.WORKER_SLOTS.labels(self._tier).set(self._concurrency)
        queues = ", ".join(self._queues)
        log.info("worker %s@%s consumes %s with %d threads", self._tier, self._name, queues, self._concurrency)

    def _look(self) -> NodeReport | None:
        """What this node can encode with; where that cannot be told, what any can do is done all the same."""
        try:
            return report_of(self._settings)
        except Exception:  # drivers, devices, a configuration: the log says which
            log.exception("what this node can encode with is not known")
            return None

    def _take_from(self, report: NodeReport) -> None:
        """Take from the queues that the node is good for now: a GPU comes, or stops working, while it runs."""
        consumer = self._worker.consumer
        if consumer is None or consumer.task_consumer is None:
            return  # before the start, or while the broker is away: the next report comes
        good_for = queues_of(report)
        for queue in good_for:
            if queue not in self._queues:
                log.warning("worker %s@%s consumes %s as well", self._tier, self._name, queue)
                self._queues.append(queue)
                consumer.call_soon(consumer.add_task_queue, queue)
        for queue in set(self._queues) - set(good_for):
            log.warning("worker %s@%s consumes %s no longer", self._tier, self._name, queue)
            self._queues.remove(queue)
            consumer.call_soon(consumer.cancel_task_queue, queue)

    def _refuse_without_queues(self) -> None:
        with self.app.connection_for_read() as connection:
            connection.ensure_connection(interval_start=1, interval_max=5, errback=_waits)
            if names := missing(connection):
                reason = f"the broker has no {', '.join(names)}: run 'afterlive topology' first"
                raise ConfigurationError(setting="AFTERLIVE_BUS_BROKER_URL", reason=reason)

    def _serve(self, pulse: Pulse, refresh: list[Callable[[], None]]) -> Callable[[], None]:
        """Start `/metrics` and `/healthz`; what stops them."""
        host = self._settings.worker.host
        try:
            health = HealthServer(host, self._port, pulse, refresh)
        except OSError as error:
            reason = (
                f"{host}:{self._port} cannot be listened on ({error.strerror}); each worker of a machine needs its own"
            )
            raise ConfigurationError(setting="AFTERLIVE_WORKER_PORT", reason=reason) from None
        health.start()
        return health.stop

    def _start_helpers(self) -> list[Callable[[], None]]:
        """What a tier with a ledger does besides; the media tier has none, nor the packages for it."""
        if self._media:
            return []
        from control.bus.clerk import Clerk
        from control.bus.relay import Relay
        from control.ledger import failures, node_views
        from control.ledger.engine import open_ledger

        ledger = open_ledger(self._settings.ledger.url)
        relay = Relay(ledger, self.app, gives_way=TIERS[self._tier].nice > 0)
        relay.start()
        self._ends.append(relay.stop)
        if self._tier == "notify":
            clerk = Clerk(self.app, ledger)
            clerk.start()
            self._ends.append(clerk.stop)

        def count_failures() -> None:
            with ledger.read() as session:
                counts = failures.open_by_task(session)
            telemetry.FAILED_TASKS.clear()
            for task, count in counts.items():
                telemetry.FAILED_TASKS.labels(task).set(count)

        def count_nodes() -> None:
            with ledger.read() as session:
                known = node_views.known(session, self._settings.media.node_lost_seconds)
            telemetry.NODES.clear()
            telemetry.NODES_WITH.clear()
            for state in ("alive", "lost"):
                telemetry.NODES.labels(state).set(sum(node.state == state for node in known))
            for node in known:
                for encoder in node.encoders if node.state == "alive" else ():
                    telemetry.NODES_WITH.labels(encoder).inc()

        return [relay.look, count_failures, count_nodes]


def _leave_logs_alone(**_: Any) -> None:
    """Celery sets up logging unless somebody says that it is done."""


def _hand_back(**_: Any) -> None:
    cancellations.halt(hand_back=True)


def _waits(error: BaseException, seconds: float) -> None:
    log.warning("the broker is away, next try in %.0f s: %s", seconds, error)
