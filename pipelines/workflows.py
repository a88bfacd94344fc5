"""Which fact starts what: the table of contents of all that happens after the live moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from celery import Celery

from control.bus.cancel import broadcast_cancel
from control.ledger.engine import Ledger
from control.settings import Settings
from control.storage import ObjectStore
from pipelines import replay
from pipelines.publish import withdraw

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


def clean_up_cancelled(context: Context, facts: Mapping[str, Any]) -> None:
    """Stop what runs, then remove what there is; first the way in."""
    broadcast_cancel(context.app, facts["replay_id"], facts["run"])
    withdraw(context.store, facts["prefix"])
    context.store.delete_prefix(facts["prefix"])


def clean_up_failed(context: Context, facts: Mapping[str, Any]) -> None:
    """Stop what runs and hide the replay; finished parts are kept for another try."""
    broadcast_cancel(context.app, facts["replay_id"], facts["run"])
    withdraw(context.store, facts["prefix"])


WORKFLOWS: Final[Mapping[str, Handler]] = {
    "stream.ended": make_replay,
    "replay.retried": make_replay,
    "replay.cancelled": clean_up_cancelled,
    "replay.failed": clean_up_failed,
}
