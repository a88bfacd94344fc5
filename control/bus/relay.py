"""The outbox relay: what transactions decided on goes onto the bus, in order, at least once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from celery import Celery
from sqlalchemy import Row
from sqlalchemy.orm import Session

from control import telemetry, tracing
from control.bus.names import CATALOGUE
from control.bus.publish import Announcement, Outgoing, publisher_of
from control.errors import AfterliveError, MessageRefused
from control.ledger import backlog, commits, outbox
from control.ledger.base import now
from control.ledger.engine import Ledger

log = logging.getLogger("afterlive.relay")
_BATCH: Final = 200
_CROWD: Final = 8
_CROWD_SECONDS: Final = 0.02
_GATHER_SECONDS: Final = 0.015
_LOOK_EVERY_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 5.0
_REFUSED_SECONDS: Final = 5.0
_STRANGE_SECONDS: Final = 3600.0
_LEFT_TO_OTHERS_SECONDS: Final = 1.0


class Relay:
    """A thread that empties the outbox: at once after a commit of this process, of others at its next look.

    `gives_way`: of a process that gets little of a busy machine. What is urgent is then left to the others for a
    second, as a row in slow hands is locked to them.
    """

    def __init__(self, ledger: Ledger, app: Celery, *, gives_way: bool = False) -> None:
        self._ledger = ledger
        self._app = app
        self._leaves_urgent_seconds = _LEFT_TO_OTHERS_SECONDS if gives_way else 0.0
        # Where several relays share a database, the rows one has in hand stay locked until they are marked. SQLite,
        # which has one writer and one relay, should not be kept from writing while the broker makes up its mind.
        self._shared = ledger.is_shared
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._forget: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._loop, name="relay", daemon=True)

    def start(self) -> None:
        self._forget = commits.on_news(self.wake)
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        self._forget()
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def wake(self) -> None:
        """Something was committed."""
        self._woken.set()

    def run_once(self) -> int:
        """Send what is due, oldest first; how many rows that were. A message that was sent and could not be marked is
        sent again."""
        with self._ledger.write() if self._shared else self._ledger.read() as session:
            rows = outbox.due(session, _BATCH, leave_urgent_seconds=self._leaves_urgent_seconds)
            if not rows:
                return 0
            known = [row for row in rows if row.task in CATALOGUE]
            events = [row for row in rows if row.task.startswith(outbox.EVENT)]
            publisher = publisher_of(self._app)
            sending = [_begin(row) for row in known]
            messages = [_message(row, traced) for row, traced in zip(known, sending, strict=True)]
            problems = publisher.publish(messages) if messages else []
            _end(sending, problems)
            if events:
                problems += publisher.announce([_event(row) for row in events])
            known += events
            done = [row.id for row, problem in zip(known, problems, strict=True) if problem is None]
            strange = [row.id for row in rows if row not in known]
            refused = [row.id for row, told in zip(known, problems, strict=True) if isinstance(told, MessageRefused)]
            if self._shared:
                _mark(session, done, refused, strange)
        if not self._shared:
            with self._ledger.write() as session:
                _mark(session, done, refused, strange)
        telemetry.OUTBOX_SENT.inc(len(done))
        if strange:
            telemetry.OUTBOX_ERRORS.inc(len(strange))
            log.error("%d messages of tasks that are not in the catalogue wait in the outbox", len(strange))
        lost = [problem for problem in problems if problem is not None]
        if refused:
            telemetry.OUTBOX_ERRORS.inc(len(refused))
            log.warning("%d messages wait %.0f s: %s", len(refused), _REFUSED_SECONDS, lost[0].detail)
        if away := next((problem for problem in lost if not isinstance(problem, MessageRefused)), None):
            raise away
        return len(rows)

    def look(self) -> None:
        """Bring the gauges of the outbox, and of what is still to be done of replays, up to date."""
        with self._ledger.read() as session:
            telemetry.OUTBOX_DEPTH.set(outbox.depth(session))
            since = outbox.oldest_due(session)
        telemetry.OUTBOX_AGE.set((now() - since).total_seconds() if since else 0.0)
        backlog.look(self._ledger)

    def _loop(self) -> None:
        pause = _LOOK_EVERY_SECONDS
        while not self._stopped.is_set():
            try:
                sent = self.run_once()
            except Exception as error:  # noqa: BLE001  (whatever it is: without the relay nothing moves)
                telemetry.OUTBOX_ERRORS.inc()
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                log.warning("the outbox waits %.1f s: %s", pause, error)
                self._stopped.wait(pause)  # not for commits: they do not bring the broker back
                continue
            pause = _LOOK_EVERY_SECONDS
            if sent:
                # Where many come, some gather, and are sent for the price of one. One that comes alone is not made to
                # wait.
                self._stopped.wait(_CROWD_SECONDS if sent >= _CROWD else _GATHER_SECONDS)
            if sent < _CROWD:
                self._woken.wait(pause)
                self._woken.clear()


def _begin(row: Row[Any]) -> tracing.Traced:
    return tracing.sending(row.task, row.payload.get(outbox.TRACE), row.created_at)


def _end(sending: Sequence[tracing.Traced], problems: Sequence[AfterliveError | None]) -> None:
    for traced, problem in zip(sending, problems, strict=True):
        if problem is not None:
            traced.failed(problem.code)
        traced.end()


def _message(row: Row[Any], traced: tracing.Traced) -> Outgoing:
    # The same id each time it is sent: who gets it twice knows it.
    task_id = row.task_id or f"outbox-{row.id}"
    since = row.created_at.timestamp()
    return Outgoing(CATALOGUE[row.task], _payload(row), task_id=task_id, since=since, trace=traced.parent)


def _event(row: Row[Any]) -> Announcement:
    return Announcement(row.task.removeprefix(outbox.EVENT), _payload(row))


def _payload(row: Row[Any]) -> dict[str, Any]:
    return {name: value for name, value in row.payload.items() if name != outbox.TRACE}


def _mark(session: Session, done: list[int], refused: list[int], strange: list[int]) -> None:
    outbox.sent(session, done)
    # One queue is full: what is for the others, and came later, must not wait behind it.
    outbox.postpone(session, refused, _REFUSED_SECONDS)
    # Another version of this program may know it; what comes after it need not wait.
    outbox.postpone(session, strange, _STRANGE_SECONDS)
