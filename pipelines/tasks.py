"""The tasks of pipelines: thin; what happens after what is in the modules they call."""

from __future__ import annotations

from typing import Any

from celery import current_app
from sqlalchemy.orm import Session

from control.bus import names
from control.bus.messages import NodeReport, PartProblem, Problem, Progress
from control.bus.task import task
from control.bus.work import Work
from control.errors import AfterliveError
from control.ledger import nodes, otp, parts, tasks
from control.ledger.engine import Ledger, open_ledger
from control.settings import current
from control.storage import open_store
from pipelines import checkout, cleanup, publish, replay, retention
from pipelines.reconcile import reconcile as reconcile_ledger
from pipelines.workflows import WORKFLOWS, Context


def nothing(session: Session) -> None:
    """The effect of a task whose steps are guarded each by itself; what is left is to note that it is done."""


def _ledger() -> Ledger:
    return open_ledger(current().ledger.url)


@task(names.HANDLE_FACT)
def handle_fact(fact: str, facts: dict[str, Any]) -> None:
    """Start the workflow of something that happened."""
    settings = current()
    ledger = _ledger()
    WORKFLOWS[fact](Context(current_app, ledger, open_store(settings.storage), settings), facts)
    tasks.once(ledger, nothing)


def _give_up(payload: dict[str, Any], error: BaseException) -> None:
    """What brings a replay forward cannot be done: it fails, rather than wait for ever. What may yet pass (the store
    is away) is left to the reconciler."""
    if not (isinstance(error, AfterliveError) and error.retryable):
        with _ledger().write() as session:
            replay.give_up(session, payload["replay_id"], payload["run"], Problem.of(error))


@task(names.PART_DONE, gave_up=_give_up)
def part_done(replay_id: str, run: int, part: str, result: dict[str, Any], task_id: str | None = None) -> None:
    """A media worker made a part; `task_id` is the task that did, which has no ledger to say so itself."""

    def effect(session: Session) -> None:
        replay.part_done(session, replay_id, run, part, result, current().media)
        if task_id:
            tasks.finish(session, task_id, "SUCCESS")

    tasks.once(_ledger(), effect)


@task(names.PART_FAILED)
def part_failed(
    replay_id: str,
    run: int,
    part: str,
    problem: dict[str, Any],
    task_id: str | None = None,
) -> None:
    """A media worker gave a part up."""
    told = PartProblem.model_validate(problem)

    def effect(session: Session) -> None:
        replay.part_failed(session, replay_id, run, part, told, current().media)
        # How others ended, `failed_tasks` tells.
        if task_id and told.encoder:
            tasks.finish(session, task_id, "FAILURE")

    tasks.once(_ledger(), effect)


@task(names.PART_PROGRESS)
def part_progress(replay_id: str, run: int, part: str, progress: dict[str, Any]) -> None:
    """A media worker is at it."""
    seen = Progress.model_validate(progress)
    with _ledger().write() as session:
        parts.progress(session, replay_id, run, part, seen.done_frames, seen.total_frames, seen.fps)


@task(names.NODE_REPORT)
def node_report(node: str, report: dict[str, Any] | None = None) -> None:
    """What a media worker can; without a report: it ends."""
    with _ledger().write() as session:
        if report is None:
            nodes.left(session, node)
        else:
            nodes.heard(session, NodeReport.model_validate(report), node)


@task(names.PUBLISH_REPLAY, gave_up=_give_up)
def publish_replay(replay_id: str, run: int) -> None:
    """Write the playlists, where there is something new to show."""
    ledger = _ledger()
    publish.publish(ledger, open_store(current().storage), replay_id, run)
    tasks.once(ledger, nothing)


@task(names.ADVANCE_ORDER)
def advance_order(order_id: str, fact: str) -> None:
    """Have what becomes of an order its consequences."""
    tasks.once(_ledger(), lambda session: checkout.advance(session, order_id, fact))


@task(names.RECONCILE)
def reconcile() -> None:
    """Send again what the ledger says is unfinished and nobody works on."""
    ledger = _ledger()
    reconcile_ledger(ledger, current().media)
    tasks.once(ledger, otp.tidy)


@task(names.FORGET_TASKS)
def forget_tasks(work: Work) -> None:
    """Remove what is known of tasks that nobody asks for any more."""
    ledger = _ledger()
    cleanup.forget_tasks(ledger, work.check)
    tasks.once(ledger, nothing)


@task(names.CLEANUP_OLD_STREAMS)
def cleanup_old_streams(work: Work, days: int | None = None, apply: bool | None = None) -> None:
    """Remove streams nobody needs any more; the clock leaves it to the settings which, and whether."""
    settings, ledger = current().retention, _ledger()
    days = settings.days if days is None else days
    apply = settings.apply if apply is None else apply
    retention.clean_up(ledger, open_store(current().storage), days, apply=apply, check=work.check)
    tasks.once(ledger, nothing)
