"""Which fact starts what: the table of contents of all that happens after the live moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from celery import Celery

from control import telemetry
from control.bus import names
from control.bus.broadcast import broadcast_cancel
from control.ledger import analytics, outbox, parts, replays
from control.ledger.engine import Ledger
from control.ledger.models import Replay
from control.settings import Settings
from control.storage import ObjectStore
from pipelines import replay
from pipelines.jobs import facts_of
from pipelines.publish import withdraw
from pipelines.replan import LOST

# A worker stops within a second; one that was cut off from the bus, or stores to a slow place, later.
_AGAIN_SECONDS: Final = 1
_TIMES_AGAIN: Final = 3

Handler = Callable[["Context", Mapping[str, Any]], None]


class Context:
    """What a handler works with."""

    def __init__(self, app: Celery, ledger: Ledger, store: ObjectStore, settings: Settings) -> None:
        self.app = app
        self.ledger = ledger
        self.store = store
        self.settings = settings


def make_replay(context: Context, facts: Mapping[str, Any]) -> None:
    with context.ledger.write() as session:
        replay.start(session, facts["replay_id"], facts["run"], context.settings.media)


def begin_after_the_stream(context: Context, facts: Mapping[str, Any]) -> None:
    """Its replay is made, and its figures are counted with the end it has now."""
    with context.ledger.write() as session:
        replay.start(session, facts["replay_id"], facts["run"], context.settings.media)
        analytics.stream_ended(session, replays.get(session, facts["replay_id"]).stream_id)


def clean_up_cancelled(context: Context, facts: Mapping[str, Any]) -> None:
    """Stop what runs, then remove what there is, first the way in; and later, each time ten times as much, what a
    worker was just storing when the word reached it."""
    broadcast_cancel(context.app, facts["replay_id"], facts["run"])
    withdraw(context.store, facts["prefix"])
    context.store.delete_prefix(facts["prefix"])
    times = int(facts.get("again", 0))
    with context.ledger.write() as session:
        if replays.cleaned(session, facts["replay_id"], facts["run"]):
            telemetry.REPLAYS.labels("cancelled").inc()
        if times < _TIMES_AGAIN:
            again = {"fact": "replay.cancelled", "facts": {**facts, "again": times + 1}}
            outbox.add(session, names.HANDLE_FACT, again, delay_seconds=_AGAIN_SECONDS * 10**times)


def clean_up_failed(context: Context, facts: Mapping[str, Any]) -> None:
    """Stop what runs and hide the replay. Finished parts are kept for another try, but not the one that did not fit."""
    broadcast_cancel(context.app, facts["replay_id"], facts["run"])
    with context.ledger.read() as session:
        if replays.get(session, facts["replay_id"]).run != facts["run"]:
            return  # it is being made again, in the same place
        failed = parts.of_replay(session, facts["replay_id"], state="failed")
    withdraw(context.store, facts["prefix"])
    for part in failed:
        context.store.delete(f"{facts['prefix']}.work/{part.name}.json")
    with context.ledger.write() as session:
        replays.cleaned(session, facts["replay_id"], facts["run"])


def clean_up_completed(context: Context, facts: Mapping[str, Any]) -> None:
    """A part was made once more after all was done; its manifest serves nobody, nor does what an encoder made that the
    replay has left."""
    context.store.delete_prefix(f"{facts['prefix']}.work/")
    with context.ledger.read() as session:
        found = session.get(Replay, facts["replay_id"])  # its stream may have been removed since
        left = facts_of(found)[1].left if found is not None else ()
    for rung in left:
        context.store.delete_prefix(f"{facts['prefix']}{rung.name}/")


def encoder_lost(context: Context, facts: Mapping[str, Any]) -> None:
    with context.ledger.write() as session:
        media = context.settings.media
        replay.encoder_lost(session, facts["replay_id"], facts["run"], facts["encoder"], media)


WORKFLOWS: Final[Mapping[str, Handler]] = {
    "stream.ended": begin_after_the_stream,
    "replay.retried": make_replay,
    "replay.cancelled": clean_up_cancelled,
    "replay.failed": clean_up_failed,
    "replay.completed": clean_up_completed,
    LOST: encoder_lost,
}
