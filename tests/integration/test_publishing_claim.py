"""Who writes playlists says so again and again; who was killed at it holds nobody up for long."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from control.bus import names
from control.ledger import outbox, replays, streams
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.storage import LocalStore
from pipelines.claim import Claim
from pipelines.publish import publish


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    made.create()
    return made


def transcoding(ledger: Ledger) -> str:
    with ledger.write() as session:
        streams.create(session, title="x", stream_id="s")
        replay_id = streams.end(session, "s", recording="x.mp4").id
        replays.move(session, replays.get(session, replay_id), ("waiting",), "transcoding")
    return replay_id


def test_a_claim_is_renewed_while_somebody_writes(ledger: Ledger) -> None:
    replay_id = transcoding(ledger)
    with ledger.write() as session:
        first = replays.claim_publishing(session, replays.get(session, replay_id))
    assert first is not None
    with Claim(ledger, replay_id, first, every_seconds=0.01) as claim:
        moved = threading.Event()
        for _ in range(500):
            if claim.at > first:
                break
            moved.wait(0.01)
    assert claim.at > first
    with ledger.write() as session:
        assert replays.claim_publishing(session, replays.get(session, replay_id)) is None
        assert not replays.release_publishing(session, replay_id, first)
        assert replays.release_publishing(session, replay_id, claim.at)


def test_a_claim_that_ran_out_is_not_taken_back(ledger: Ledger) -> None:
    replay_id = transcoding(ledger)
    late = now() - timedelta(seconds=replays.PUBLISHING_LEASE_SECONDS + 1)
    with ledger.write() as session:
        replays.touch(session, replay_id, publishing_since=late)
        theirs = replays.claim_publishing(session, replays.get(session, replay_id))
    claim = Claim(ledger, replay_id, late, every_seconds=0.01)
    with claim:
        claim._thread.join(5)
    assert claim.at == late
    with ledger.read() as session:
        assert replays.get(session, replay_id).publishing_since == theirs


def test_who_finds_it_claimed_looks_again_when_the_claim_may_have_run_out(ledger: Ledger, tmp_path: Path) -> None:
    """The message of a worker that was killed comes back at once, long before its claim has run out."""
    replay_id = transcoding(ledger)
    with ledger.write() as session:
        replays.touch(session, replay_id, publishing_since=now())
        outbox.sent(session, [row.id for row in outbox.due(session, 100)])
    publish(ledger, LocalStore(tmp_path / "store"), replay_id, run=1)
    with ledger.write() as session:
        assert outbox.due(session, 100) == []
        (waiting,) = session.scalars(select(OutboxRow))
        assert waiting.task == names.PUBLISH_REPLAY.name
        assert waiting.available_at > now() + timedelta(seconds=replays.PUBLISHING_LEASE_SECONDS - 5)
