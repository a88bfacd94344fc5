"""Group commit: facts that come at the same time are committed together, each answered when its transaction is.

A transaction costs the same for one fact or for sixty. Nobody is made to wait for others: what comes while one is being
committed is the next group.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from control import tracing
from control.errors import AfterliveError
from control.ledger.engine import Ledger

Fact = TypeVar("Fact")
Answer = TypeVar("Answer")
_Waiting = tuple[Fact, "Future[Answer]", str | None]
_MOST: Final = 64


class GroupCommit(Generic[Fact, Answer]):
    """`act(session, facts)` gives for each fact its answer, or the error that is its answer; it runs in a thread of the
    group's own, started when first needed."""

    def __init__(
        self, ledger: Ledger, act: Callable[[Session, Sequence[Fact]], Sequence[Answer | AfterliveError]]
    ) -> None:
        self._ledger = ledger
        self._act = act
        self._waiting: queue.SimpleQueue[_Waiting[Fact, Answer]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, fact: Fact) -> Future[Answer]:
        """Done once the fact is committed; it raises what the ledger raised, or the fact's own error."""
        future: Future[Answer] = Future()
        self._waiting.put((fact, future, tracing.here()))
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="group-commit", daemon=True)
                self._thread.start()
        return future

    def _loop(self) -> None:
        while True:
            group = [self._waiting.get()]
            while len(group) < _MOST:
                try:
                    group.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            # What follows from a fact that is traced belongs to its trace, and to no other's.
            for fact, future, trace in group:
                if trace is not None:
                    with tracing.within(trace):
                        self._commit([(fact, future)])
            if untraced := [(fact, future) for fact, future, trace in group if trace is None]:
                self._commit(untraced)

    def _commit(self, group: list[tuple[Fact, Future[Answer]]]) -> None:
        try:
            with self._ledger.write() as session:
                answers = self._act(session, [fact for fact, _ in group])
        except Exception as error:  # noqa: BLE001  (whatever it is, somebody waits to be told)
            if len(group) > 1 and not isinstance(error, OperationalError):
                # One of them cannot be committed; the others can.
                for one in group:
                    self._commit([one])
                return
            for _, future in group:
                _settle(future, error)
            return
        for (_, future), answer in zip(group, answers, strict=True):
            _settle(future, answer)


def _settle(future: Future[Answer], answer: Answer | BaseException) -> None:
    if not future.set_running_or_notify_cancel():
        return  # whoever asked has gone; what was asked is done all the same
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)
