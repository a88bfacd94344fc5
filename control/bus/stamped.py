"""Celery's application, for what Celery itself sends by name: a step of a canvas, by whoever has no body of it."""

from __future__ import annotations

import math
import uuid
from typing import Any

from celery import Celery

from control.bus.names import CATALOGUE
from control.bus.publish import PUBLISHED_AT, Outgoing


class StampedCelery(Celery):
    """Puts on such a message what the base task puts on its own: when it was sent, the signature, and of the arguments
    only what monitors may see."""

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:  # type: ignore[override]
        spec, headers = CATALOGUE.get(name), options.get("headers") or {}
        if spec is not None and PUBLISHED_AT not in headers:
            # Delays of quorum queues are whole seconds.
            countdown = math.ceil(options.get("countdown") or 0)
            task_id = options.pop("task_id", None) or str(uuid.uuid4())
            message = Outgoing(spec, kwargs or {}, task_id=task_id, delay_seconds=countdown)
            options |= {"task_id": task_id, "countdown": countdown or None, **message.shown()}
            options["headers"] = headers | message.headers(self)
        return super().send_task(name, args, kwargs, **options)
