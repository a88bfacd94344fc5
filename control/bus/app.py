"""The only Celery configuration. Embedded or on RabbitMQ, only settings differ."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery

from control.bus import live, memory, tls
from control.bus.broadcast import listen
from control.bus.names import CATALOGUE, DEFAULT, HIGH, LOW, TaskSpec
from control.bus.publish import InProcess, Publisher, use_publisher
from control.bus.rights import EVENTS_EXCHANGE
from control.bus.signing import use_keys
from control.bus.stamped import StampedCelery
from control.bus.topology import TASKS, on_rabbitmq, queues
from control.settings import BusSettings

# Where tasks live, by name: nobody here imports a worker.
PIPELINES: Final = "pipelines.tasks"
MEDIA: Final = "media_worker.tasks"
NOTIFY: Final = "notify_worker.tasks"


@dataclass(frozen=True)
class Tier:
    """What one kind of worker consumes, and where its tasks are."""

    queues: tuple[str, ...]
    modules: tuple[str, ...]
    nice: int = 0
    """How far it gives way to the others where they share a machine: a mail that comes a second later hurts nobody, a
    payment does."""


TIERS: Final = {
    "fast": Tier((HIGH,), (PIPELINES, NOTIFY)),
    "notify": Tier((DEFAULT,), (PIPELINES, NOTIFY), nice=15),
    # Its encoders run idle besides: this is what the process itself does between them.
    "media": Tier((LOW,), (MEDIA,), nice=19),
}


def make_app(
    settings: BusSettings, modules: Sequence[str] = (), schedule: dict[str, Any] | None = None, *, tier: str = ""
) -> Celery:
    """The application, with the tasks of `modules` once a worker starts or `import_default_modules` is called."""
    broker = settings.broker_url.get_secret_value()
    real = on_rabbitmq(broker)
    if broker == "memory://":
        memory.install()
    live.use(settings)
    app: Celery = StampedCelery("afterlive", broker=broker, set_as_current=False)
    app.conf.update(
        include=list(modules),
        result_backend=settings.result_backend.get_secret_value(),
        # JSON alone: a pickle from the bus would be code.
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_queues=queues(broker),
        task_create_missing_queues=False,
        task_default_queue=DEFAULT,
        task_routes={spec.name: _route(spec, real) for spec in CATALOGUE.values()},
        # A message is done when its work is, not when it was picked up; a worker that dies gives it back.
        task_acks_late=True,
        task_acks_on_failure=False,  # of tasks that are not ours; see the base task
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        # The ledger holds results; a result backend that is down must not fail a task that succeeded.
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        # As long as it takes: a worker outlives its broker.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"confirm_publish": True} if real else {},
        # Half a minute without a sign of the other side is too long where a code is valid for five.
        broker_heartbeat=10 if real else 0,
        control_exchange="afterlive",
        # A node of the media tier could make more of it than is good for the others (see `control.bus.rights`).
        worker_enable_remote_control=tier != "media",
        event_exchange=EVENTS_EXCHANGE if real else "celeryev",
        worker_consumer="control.bus.consumer:Consumer" if real else "celery.worker.consumer:Consumer",
        # Monitors turn events on by remote control, which does not reach this tier. Its tasks are few and long.
        worker_send_task_events=tier == "media",
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        timezone="UTC",
        beat_schedule=schedule or {},
        **tls.celery_options(settings),
    )
    listen(app)
    use_keys(app, [key.get_secret_value() for key in settings.signing_keys])
    use_publisher(app, _confirmed(app, settings) if real else InProcess(app))
    # Celery tells of each task in its own words; the base task's line says it all.
    for name in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return app


def _route(spec: TaskSpec, real: bool) -> dict[str, Any]:
    if not real:
        return {"queue": spec.queue, "routing_key": spec.routing_key}
    # By exchange: with a queue named, Celery would send what is to be delayed by the queue's own routing key.
    return {"exchange": TASKS.name, "exchange_type": TASKS.type, "routing_key": spec.routing_key}


def _confirmed(app: Celery, settings: BusSettings) -> Publisher:
    from control.bus.confirmed import Confirmed  # embedded mode needs none of it, and should not wait for it

    url = settings.broker_url.get_secret_value()
    return Confirmed(app, url, tls=tls.context(settings), timeout_seconds=settings.publish_seconds)
