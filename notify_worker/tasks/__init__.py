"""The notify tier's tasks, a module a noun."""

from notify_worker.tasks import (  # noqa: F401  (registers their tasks)
    admin,
    analytics,
    email,
    order,
    payment,
    sms,
    webhook,
)
