"""The only Celery configuration. Embedded or on RabbitMQ, only settings differ."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from celery import Celery

from control.bus import memory
from control.bus.names import CATALOGUE, DEFAULT
from control.bus.topology import queues
from control.settings import BusSettings

# Where tasks live, by name: nobody here imports a worker.
PIPELINES: Final = "pipelines.tasks"
MEDIA: Final = "media_worker.tasks"
_OWN: Final = ("control.bus.cancel",)


def make_app(settings: BusSettings, modules: Sequence[str] = (), schedule: dict[str, Any] | None = None) -> Celery:
    """The application, with the tasks of `modules` once a worker starts or `import_default_modules` is called."""
    broker = settings.broker_url.get_secret_value()
    if broker == "memory://":
        memory.install()
    app = Celery("afterlive", broker=broker, set_as_current=False)
    app.conf.update(
        include=[*_OWN, *modules],
        result_backend=settings.result_backend.get_secret_value(),
        # JSON alone: a pickle from the bus would be code.
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_queues=queues(broker),
        task_create_missing_queues=False,
        task_default_queue=DEFAULT,
        task_routes={spec.name: {"queue": spec.queue} for spec in CATALOGUE.values()},
        # A message is done when its work is, not when it was picked up; a worker that dies gives it back.
        task_acks_late=True,
        task_acks_on_failure=False,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        # The ledger holds results; a result backend that is down must not fail a task that succeeded.
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        timezone="UTC",
        beat_schedule=schedule or {},
    )
    # Celery tells of each task in its own words; the base task's line says it all.
    for name in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return app
