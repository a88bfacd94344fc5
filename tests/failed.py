"""Failed tasks noted in the ledger, as the clerk does, where a test is about what becomes of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from control.bus import names
from control.bus.names import TaskSpec, business_key
from control.ledger import failures, late, outbox, parts, replays, streams
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.task_models import FailedTask

FACT: dict[str, Any] = {"fact": "stream.ended", "facts": {"replay_id": "rep_1"}}
_count = itertools.count()


def failure(task_id: str, spec: TaskSpec = names.HANDLE_FACT, payload: Any = None, **changes: Any) -> FailedTask:
    """What the clerk would note of a task that failed finally."""
    given = FACT if payload is None else payload
    facts: dict[str, Any] = {
        "origin": f"origin-{next(_count)}",
        "task_id": task_id,
        "task": spec.name,
        "queue": spec.queue,
        "key": business_key(spec, given),
        "payload": given,
        "reason": "failed",
        "code": "internal-error",
        "detail": "It was made to fail.",
        "exception": "builtins.ZeroDivisionError",
        "traceback": "Traceback (most recent call last): …",
        "attempts": 6,
        "published_at": now(),
        "failed_at": now(),
    }
    return FailedTask(**(facts | changes))


def failed(ledger: Ledger, spec: TaskSpec = names.HANDLE_FACT, payload: Any = None, **changes: Any) -> FailedTask:
    """A task that an outbox sent and that failed finally."""
    with ledger.write() as session:
        task_id = outbox.add(session, spec, FACT if payload is None else payload)
        sent(ledger, session)
        row = failure(task_id, spec, payload, **changes)
        assert failures.note(session, row)
    return row


def sent(ledger: Ledger, session: Any) -> None:
    """What waits in the outbox is on the bus."""
    session.flush()
    late.write(session)
    outbox.sent(session, [row.id for row in session.scalars(select(OutboxRow))])


def waiting(ledger: Ledger, spec: TaskSpec = names.HANDLE_FACT) -> Sequence[OutboxRow]:
    """Messages of a task that are to be sent."""
    with ledger.read() as session:
        return session.scalars(select(OutboxRow).where(OutboxRow.task == spec.name).order_by(OutboxRow.id)).all()


def part(ledger: Ledger, stream_id: str, kind: str, *, state: str, of_replay: str = "transcoding") -> FailedTask:
    """A part of a stream's replay that failed finally, and the part's state; the replay's is `of_replay`."""
    specs = {"chunk": names.TRANSCODE_CHUNK, "pictures": names.GENERATE_STREAM_THUMBNAIL}
    with ledger.write() as session:
        streams.create(session, title="t", stream_id=stream_id)
        replay = streams.end(session, stream_id, recording="a.mp4")
        parts.add(session, replay.id, kind, 0, total_frames=30).state = state
        assert replays.move(session, replay, ("waiting",), of_replay)
        name = parts.name(kind, 0)
    job = {"replay_id": replay.id, "run": 1, "part": name}
    return failed(ledger, specs[kind], {"job": job})
