"""The tasks of pipelines: thin; what happens after what is in the modules they call."""

from __future__ import annotations

from typing import Any

from celery import current_app

from control.bus import names
from control.bus.messages import Problem, Progress
from control.bus.task import task
from control.errors import AfterliveError
from control.ledger import parts
from control.ledger.engine import Ledger, open_ledger
from control.settings import current
from control.storage import open_store
from pipelines import publish, replay
from pipelines.reconcile import reconcile as reconcile_ledger
from pipelines.workflows import WORKFLOWS, Context


def _ledger() -> Ledger:
    return open_ledger(current().ledger.url)


@task(names.HANDLE_FACT)
def handle_fact(fact: str, facts: dict[str, Any]) -> None:
    """Start the workflow of something that happened."""
    settings = current()
    WORKFLOWS[fact](Context(current_app, _ledger(), open_store(settings.storage), settings), facts)


def _give_up(payload: dict[str, Any], error: BaseException) -> None:
    """What brings a replay forward cannot be done: it fails, rather than wait for ever. What may yet pass (the store
    is away) is left to the reconciler."""
    if not (isinstance(error, AfterliveError) and error.retryable):
        with _ledger().write() as session:
            replay.give_up(session, payload["replay_id"], payload["run"], Problem.of(error))


@task(names.PART_DONE, gave_up=_give_up)
def part_done(replay_id: str, run: int, part: str, result: dict[str, Any]) -> None:
    """A media worker made a part."""
    with _ledger().write() as session:
        replay.part_done(session, replay_id, run, part, result, current().media)


@task(names.PART_FAILED)
def part_failed(replay_id: str, run: int, part: str, problem: dict[str, Any]) -> None:
    """A media worker gave a part up."""
    with _ledger().write() as session:
        replay.part_failed(session, replay_id, run, part, Problem.model_validate(problem))


@task(names.PART_PROGRESS)
def part_progress(replay_id: str, run: int, part: str, progress: dict[str, Any]) -> None:
    """A media worker is at it."""
    seen = Progress.model_validate(progress)
    with _ledger().write() as session:
        parts.progress(session, replay_id, run, part, seen.done_frames, seen.total_frames, seen.fps)


@task(names.PUBLISH_REPLAY, gave_up=_give_up)
def publish_replay(replay_id: str, run: int) -> None:
    """Write the playlists, where there is something new to show."""
    publish.publish(_ledger(), open_store(current().storage), replay_id, run)


@task(names.RECONCILE)
def reconcile() -> None:
    """Send again what the ledger says is unfinished and nobody works on."""
    reconcile_ledger(_ledger(), current().media)
