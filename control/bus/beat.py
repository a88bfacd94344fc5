"""The clock. When something last happened is in the ledger, and whoever moves that sends the task, in one transaction:
any number of Beats may run, each tick happens once, and one that was missed is made up for once.
"""

from __future__ import annotations

import logging
from queue import Empty, SimpleQueue
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
    `max_interval` seconds at least, and before each tick: what another Beat did is known.

    Raises KeyError where the schedule has a task that is not in the catalogue.
    """

    def __init__(self, app: Celery, *args: Any, **kwargs: Any) -> None:
        self._ledger: Ledger = open_ledger(current().ledger.url)
        super().__init__(app, *args, **kwargs)

    def setup_schedule(self) -> None:
        # Without Celery's own entry, which cleans result backends; and without the database, which may be away.
        self.data: dict[str, ScheduleEntry] = {}
        self.merge_inplace(self.app.conf.beat_schedule)
        self._specs = {name: CATALOGUE[str(entry.task)] for name, entry in self.data.items()}

    def tick(self, *args: Any, **kwargs: Any) -> float:  # noqa: ARG002  (Celery's)
        """Have happen what is due; seconds until the next look.

        Celery's own keeps a heap of when it thinks that things are due. Here the ledger says so, and other Beats change
        it: all entries, which are few, are looked at each time.
        """
        longest = float(self.max_interval or 1)
        try:
            self._catch_up()
            return min([longest, *(self._look(entry) for entry in list(self.data.values()))])
        except SQLAlchemyError as error:
            log.warning("the clock waits for the database: %s", error)
            return longest

    def apply_async(self, entry: ScheduleEntry, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002  (Celery's)
        """Decide that `entry` happens now, unless another Beat did."""
        name, at = str(entry.name), self.app.now()
        spec = self._specs[name]
        with self._ledger.write() as session:
            if schedule.move(session, name, entry.last_run_at or at, at):
                outbox.add(session, spec, dict(entry.kwargs or {}))
                log.info("tick=%s task=%s", name, spec.name)

    def _look(self, entry: ScheduleEntry) -> float:
        try:
            is_due, seconds = entry.is_due()
        except Exception:
            log.exception("when %s is due cannot be told; the others go on", entry.name)
            return float(self.max_interval or 1)
        if is_due:
            self.apply_async(entry)
        return max(0.0, float(seconds))

    def _catch_up(self) -> None:
        with self._ledger.read() as session:
            seen = schedule.last_runs(session, list(self.data))
        if new := [name for name in self.data if name not in seen]:
            with self._ledger.write() as session:
                seen |= schedule.begin(session, new, self.app.now())
        for name, at in seen.items():
            self.data[name].last_run_at = at


class Clock:
    """Ticks until somebody says stop: another thread, or a signal's handler."""

    def __init__(self, app: Celery, look_every_seconds: float) -> None:
        self._scheduler = LedgerScheduler(app, max_interval=look_every_seconds)
        # Celery's Beat sleeps to the next tick, whoever calls; and a handler may put into this queue at any moment.
        self._stops: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        while True:
            seconds = self._scheduler.tick()
            try:
                self._stops.get(timeout=seconds)
            except Empty:
                continue
            return

    def stop(self) -> None:
        self._stops.put(None)
