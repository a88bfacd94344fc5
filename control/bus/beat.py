"""The clock. When something last happened is in the ledger, and whoever moves that sends the task, in one transaction:
any number of Beats may run, each tick happens once, and one that was missed is made up for once.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from sqlalchemy.exc import SQLAlchemyError

from control.bus.names import CATALOGUE
from control.ledger import outbox, schedule
from control.ledger.engine import Ledger, open_ledger
from control.settings import current

log = logging.getLogger("afterlive.beat")


class LedgerScheduler(Scheduler):
    """Celery's scheduler, with its memory in the ledger and the outbox for a broker. It looks at the ledger every
    `max_interval` seconds, so another Beat's ticks are known that late at most; until then its own are refused."""

    def __init__(self, app: Celery, *args: Any, **kwargs: Any) -> None:
        self._ledger: Ledger = open_ledger(current().ledger.url)
        super().__init__(app, *args, **kwargs)

    def setup_schedule(self) -> None:
        # Without Celery's own entry, which cleans result backends.
        self.data: dict[str, ScheduleEntry] = {}
        self.merge_inplace(self.app.conf.beat_schedule)
        self._catch_up()

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Seconds until the next."""
        try:
            self._catch_up()
            return float(super().tick(*args, **kwargs) or 0)
        except SQLAlchemyError as error:
            log.warning("the clock waits for the database: %s", error)
            return float(self.max_interval or 1)

    def apply_async(self, entry: ScheduleEntry, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002  (Celery's)
        """Decide that `entry` happens now, unless another Beat did."""
        spec, name, before = CATALOGUE[str(entry.task)], str(entry.name), entry.last_run_at or self._now()
        with self._ledger.write() as session:
            if schedule.move(session, name, before, self._now()):
                outbox.add(session, spec, dict(entry.kwargs or {}))
                log.info("tick=%s task=%s", name, spec.name)

    def _now(self) -> datetime:
        return self.app.now()

    def _catch_up(self) -> None:
        with self._ledger.write() as session:
            seen = schedule.last_runs(session, list(self.data), self._now())
        for name, at in seen.items():
            self.data[name].last_run_at = at
