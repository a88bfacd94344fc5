"""The application Flower looks at: `celery --app control.bus.flower flower`. It only watches, and needs no task."""

from __future__ import annotations

from control.bus.app import make_app
from control.settings import current

app = make_app(current().bus)
