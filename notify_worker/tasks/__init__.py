"""The notify tier's tasks, a module a noun."""

from notify_worker.tasks import admin  # noqa: F401  (registers its tasks)
