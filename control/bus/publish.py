"""Sending a task by its name, with the catalogue's policy."""

from __future__ import annotations

import math
import time
from typing import Any, Final

from celery import Celery

from control.bus.names import TaskSpec

PUBLISHED_AT: Final = "afterlive_published_at"
_HIDDEN: Final = "***"


def send(
    app: Celery,
    spec: TaskSpec,
    payload: dict[str, Any],
    *,
    countdown: float | None = None,
    expires_seconds: float | None = None,
) -> str:
    """Put one message on the bus; its task id. Raises kombu.exceptions.OperationalError where the broker is away."""
    shown = masked(spec, payload)
    sent = app.send_task(
        spec.name,
        kwargs=payload,
        queue=spec.queue,
        # Quorum queues know no delay under a second.
        countdown=max(1, math.ceil(countdown)) if countdown else None,
        expires=expires_seconds,
        ignore_result=True,
        headers={PUBLISHED_AT: time.time()},
        argsrepr="()",
        kwargsrepr=repr(shown),
    )
    return str(sent.id)


def masked(spec: TaskSpec, payload: dict[str, Any]) -> dict[str, Any]:
    """The payload as logs and monitors may show it: secrets hidden, jobs by their name alone."""
    shown: dict[str, Any] = {}
    for key, value in payload.items():
        if key in spec.secret:
            shown[key] = _HIDDEN
        elif isinstance(value, dict):
            shown[key] = {name: value[name] for name in ("replay_id", "part", "run") if name in value}
        else:
            shown[key] = value
    return shown
