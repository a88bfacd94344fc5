"""Beat's table: what happens by the clock. Hours are UTC's."""

from __future__ import annotations

from typing import Any, Final

from celery.schedules import crontab

from control.bus import names

_EVERY_MINUTE: Final = 60.0

SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "reconcile": {
        "task": names.RECONCILE.name,
        "schedule": _EVERY_MINUTE,
        "options": {"queue": names.RECONCILE.queue, "ignore_result": True},
    },
    "forget-tasks": {
        "task": names.FORGET_TASKS.name,
        "schedule": crontab(minute="30", hour="3"),
        "options": {"queue": names.FORGET_TASKS.queue, "ignore_result": True},
    },
}
