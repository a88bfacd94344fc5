"""Old streams go: first the way in to their replay, then its files, then the ledger's rows.

What was begun goes on, whenever it was broken off: each step may be done again, and the row that says so goes last.
Recordings are the platform's, and stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from control.ledger import retention
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import Replay
from control.ledger.retention import Old
from control.storage import ObjectStore
from pipelines.publish import withdraw

log = logging.getLogger("afterlive.retention")
_PAGE: Final = 100
# In one transaction: others write in between.
_BATCH: Final = 2000


@dataclass
class Cleaned:
    """What went, or (`applied` is false) would go."""

    applied: bool
    streams: int = 0
    kept: int = 0
    """Old enough, but not all is counted yet, or somebody makes the replay again."""
    objects: int = 0
    rows: int = 0


def clean_up(
    ledger: Ledger, store: ObjectStore, days: int, *, apply: bool, check: Callable[[], None] = lambda: None
) -> Cleaned:
    """Remove streams whose replay ended more than `days` ago; 0 keeps all. Without `apply`, only tell which. `check` is
    called in between, and may raise."""
    done = Cleaned(applied=apply)
    if days <= 0:
        log.info("old streams are kept for ever")
        return done
    before = now() - timedelta(days=days)
    for old in _old(ledger, before):
        check()
        if not apply:
            log.info("would remove stream=%s replay=%s ended=%s", old.stream_id, old.replay_id, old.ended_at.date())
            done.streams += 1
        elif remove(ledger, store, old, before, done, check):
            log.info("removed stream=%s replay=%s ended=%s", old.stream_id, old.replay_id, old.ended_at.date())
            done.streams += 1
        else:
            done.kept += 1
    log.info(
        "old streams applied=%s streams=%d kept=%d objects=%d rows=%d",
        done.applied, done.streams, done.kept, done.objects, done.rows,
    )  # fmt: skip
    return done


def _old(ledger: Ledger, before: datetime) -> Iterator[Old]:
    last: Old | None = None
    while True:
        with ledger.read() as session:
            found = retention.page(session, before, limit=_PAGE, after=last)
        yield from found
        if len(found) < _PAGE:
            return
        last = found[-1]


def remove(
    ledger: Ledger, store: ObjectStore, old: Old, before: datetime, done: Cleaned, check: Callable[[], None]
) -> bool:
    """One of them; False where it is to stay for now."""
    with ledger.write() as session:
        replay = retention.begin(session, old, before)
    if replay is None:
        return False
    for prefix in _prefixes(replay):
        withdraw(store, prefix)
        done.objects += store.delete_prefix(prefix)
        check()
    while True:
        with ledger.write() as session:
            gone = retention.forget_some(session, old.stream_id, old.replay_id, _BATCH)
        done.rows += gone
        if not gone:
            return True
        check()


def _prefixes(replay: Replay) -> list[str]:
    """Where a replay's files may be: each run after a cancelled one had a place of its own (control.ledger.streams)."""
    return [f"replays/{replay.id}/", *(f"replays/{replay.id}.{run}/" for run in range(2, replay.run + 1))]
