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
    # Each hour: days end at another hour in each zone, and what was missed is made up for.
    "daily-report": {
        "task": names.GENERATE_DAILY_REPORT.name,
        "schedule": crontab(minute="0"),
        "options": {"queue": names.GENERATE_DAILY_REPORT.queue, "ignore_result": True},
    },
    "cleanup-old-streams": {
        "task": names.CLEANUP_OLD_STREAMS.name,
        "schedule": crontab(minute="0", hour="3"),
        "options": {"queue": names.CLEANUP_OLD_STREAMS.queue, "ignore_result": True},
    },
    # Reservations end by themselves (control.ledger.reservations); this is for those whose message was lost.
    "check-abandoned-carts": {
        "task": names.CHECK_ABANDONED_CARTS.name,
        "schedule": crontab(minute="0"),
        "options": {"queue": names.CHECK_ABANDONED_CARTS.queue, "ignore_result": True},
    },
    "reconcile-payments": {
        "task": names.RECONCILE_PAYMENTS.name,
        "schedule": 600.0,
        "options": {"queue": names.RECONCILE_PAYMENTS.queue, "ignore_result": True},
    },
}
