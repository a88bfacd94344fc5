"""Beat's table: what happens by the clock."""

from __future__ import annotations

from typing import Any, Final

from control.bus import names

_EVERY_MINUTE: Final = 60.0

SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "reconcile": {
        "task": names.RECONCILE.name,
        "schedule": _EVERY_MINUTE,
        "options": {"queue": names.RECONCILE.queue, "ignore_result": True},
    },
}
