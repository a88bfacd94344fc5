"""Old streams go when that was asked for, wholly, and whatever interrupts it; nothing else does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select, update

from control.bus import names
from control.cli.cleanup import cleanup
from control.errors import Conflict, StorageUnavailable
from control.ledger import analytics, outbox, retention, streams, views
from control.ledger.analytics_models import Sale, ViewEvent
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import EventRow, OutboxRow, Part, Replay, Stream
from control.settings import RetentionSettings, Settings
from control.storage import LocalStore, open_store
from notify_worker.analytics.aggregate import count
from pipelines.playlists import MASTER_PLAYLIST
from pipelines.retention import Cleaned, clean_up
from tests.backend import backend
from tests.bus import until
from tests.fake_media import Studio
from tests.viewers import sell, watch
from tests.viewers import views as seen

AGE = timedelta(days=40)


def finished(ledger: Ledger, store: LocalStore, stream_id: str, state: str = "completed", days: float = 40) -> str:
    """A stream whose replay ended so long ago; the replay's id."""
    ended = now() - timedelta(days=days)
    with ledger.write() as session:
        streams.create(session, title=stream_id, stream_id=stream_id)
        replay_id = streams.end(session, stream_id, recording="a.mp4").id
        done = {"state": state, "finished_at": ended if state in ("completed", "failed", "cancelled") else None}
        session.execute(update(Replay).where(Replay.id == replay_id).values(done))
        times = {"created_at": ended - timedelta(hours=1), "ended_at": ended}
        session.execute(update(Stream).where(Stream.id == stream_id).values(times))
        session.add(Part(replay_id=replay_id, name="chunk-00000", kind="chunk", number=0, state="done"))
    for name in (MASTER_PLAYLIST, "v1/00001.m4s", "replay.json"):
        store.put_bytes(f"replays/{replay_id}/{name}", b"x")
    return replay_id


def rows(ledger: Ledger) -> dict[str, int]:
    with ledger.read() as session:
        return {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
            for table in (Stream, Replay, Part, EventRow, ViewEvent, Sale)
        }


def clean(ledger: Ledger, store: Any, *, apply: bool = True, **more: Any) -> Cleaned:
    return clean_up(ledger, store, 30, apply=apply, **more)


def test_a_dry_run_changes_nothing(ledger: Ledger, local_store: LocalStore) -> None:
    finished(ledger, local_store, "old")
    before, keys = rows(ledger), list(local_store.list(""))
    assert clean(ledger, local_store, apply=False).streams == 1
    assert (rows(ledger), list(local_store.list(""))) == (before, keys)


def test_old_ones_go_and_others_stay(ledger: Ledger, local_store: LocalStore) -> None:
    for state in ("completed", "failed", "cancelled"):
        finished(ledger, local_store, f"old-{state}", state)
    young = finished(ledger, local_store, "young", days=29)
    kept = [young, *(finished(ledger, local_store, state, state) for state in ("waiting", "probing", "transcoding"))]
    with ledger.write() as session:
        streams.create(session, title="on", stream_id="on", recording="b.mp4")
        session.execute(update(Stream).where(Stream.id == "on").values(created_at=now() - AGE))
    assert clean(ledger, local_store).streams == 3
    assert {key.split("/")[1] for key in local_store.list("")} == set(kept)
    left = rows(ledger)
    assert (left["streams"], left["replays"], left["parts"], left["events"]) == (8, 4, 4, 4)
    assert clean(ledger, local_store).streams == 0
    with ledger.read() as session:
        assert views.snapshot(session, "old-completed").replay is None


def test_without_a_number_of_days_all_is_kept(ledger: Ledger, local_store: LocalStore) -> None:
    finished(ledger, local_store, "old")
    assert clean_up(ledger, local_store, 0, apply=True) == Cleaned(applied=True)
    assert rows(ledger)["replays"] == 1


def test_figures_and_sales_stay_and_no_more_viewers_come(ledger: Ledger, local_store: LocalStore) -> None:
    finished(ledger, local_store, "s")
    with ledger.read() as session:
        begin = streams.get(session, "s").created_at
    watch(ledger, seen("a0j a50l b10j", begin))
    sell(ledger, "o1", 5, 100, begin=begin)
    assert clean(ledger, local_store).kept == 1  # not all of it is counted yet
    assert rows(ledger)["view_events"] == 3
    with ledger.read() as session:  # which was asked for
        assert session.scalar(select(func.count()).where(OutboxRow.task == names.AGGREGATE_STREAM_ANALYTICS.name)) == 2
    count(ledger, "s", grace_seconds=60)
    assert clean(ledger, local_store).streams == 1
    assert (rows(ledger)["view_events"], rows(ledger)["sales"]) == (0, 1)
    with pytest.raises(Conflict):
        watch(ledger, seen("c1j", begin))
    count(ledger, "s", grace_seconds=60)
    with ledger.read() as session:
        row = analytics.get(session, "s")
    assert row
    assert row.data
    assert (row.data["viewers"], row.data["orders"]) == (2, 1)


class _Broken:
    """A store that fails after so many deletions, as one does whose process is killed."""

    def __init__(self, store: LocalStore, deletions: int) -> None:
        self._store, self._left = store, deletions

    def delete(self, key: str) -> None:
        self._may()
        self._store.delete(key)

    def delete_prefix(self, prefix: str) -> int:
        self._may()
        return self._store.delete_prefix(prefix)

    def _may(self) -> None:
        if not self._left:
            raise StorageUnavailable(key="", reason="it is gone")
        self._left -= 1


@pytest.mark.parametrize("deletions", [0, 1])
def test_what_was_broken_off_goes_on(ledger: Ledger, local_store: LocalStore, deletions: int) -> None:
    replay_id = finished(ledger, local_store, "old", "failed")
    with pytest.raises(StorageUnavailable):
        clean(ledger, _Broken(local_store, deletions))
    assert (local_store.size(f"replays/{replay_id}/{MASTER_PLAYLIST}") is None) is bool(deletions)
    with ledger.write() as session, pytest.raises(Conflict):
        streams.retry(session, "old")  # it would be made while it is removed
    assert clean(ledger, local_store).streams == 1
    assert list(local_store.list("")) == []
    assert rows(ledger)["replays"] == 0


def test_rows_go_in_batches_and_what_was_broken_off_goes_on(
    ledger: Ledger, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.retention._BATCH", 3)
    finished(ledger, local_store, "s")
    with ledger.read() as session:
        begin = streams.get(session, "s").created_at
    watch(ledger, seen(" ".join(f"a{second}h" for second in range(10)), begin))
    count(ledger, "s", grace_seconds=60)
    looks = iter(range(100))

    def check() -> None:
        if next(looks) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clean(ledger, local_store, check=check)
    assert 0 < rows(ledger)["view_events"] < 10
    done = clean(ledger, local_store)
    assert done.streams == 1
    assert (rows(ledger)["view_events"], rows(ledger)["replays"]) == (0, 0)


def test_one_that_is_made_again_meanwhile_stays(ledger: Ledger, local_store: LocalStore) -> None:
    finished(ledger, local_store, "s", "failed")
    with ledger.read() as session:
        (old,) = retention.page(session, now(), limit=10)
    with ledger.write() as session:
        streams.retry(session, "s")
    with ledger.write() as session:
        assert retention.begin(session, old, now()) is None


@pytest.fixture
def removing(settings: Settings) -> Settings:
    return settings.model_copy(update={"retention": RetentionSettings(_env_file=None, days=30, apply=True)})


def test_from_the_clock_to_the_last_file(removing: Settings) -> None:
    with backend(removing, Studio()) as made:
        replay_id = made.end()
        made.wait("completed")
        with made.ledger.write() as session:
            long_ago = now() - AGE
            session.execute(update(Replay).values(finished_at=long_ago))
            session.execute(update(Stream).values(ended_at=long_ago))
            outbox.add(session, names.CLEANUP_OLD_STREAMS, {})
        until(lambda: rows(made.ledger)["replays"] == 0, "the replay is removed")
        assert list(open_store(removing.storage).list(f"replays/{replay_id}")) == []


def test_the_command_shows_first_and_asks_a_worker(
    ledger: Ledger, local_store: LocalStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERLIVE_DATABASE_URL", settings.ledger.url)
    finished(ledger, local_store, "old")

    def run(*arguments: str) -> str:
        return CliRunner().invoke(cleanup, arguments, catch_exceptions=False).output

    assert "kept for ever" in run()
    assert "No stream is older" in run("--older-than", "50")
    shown = run("--older-than", "30")
    assert "old" in shown
    assert "Nothing was removed" in shown
    asked = select(OutboxRow.payload).where(OutboxRow.task == names.CLEANUP_OLD_STREAMS.name)
    with ledger.read() as session:
        assert session.scalars(asked).all() == []
    run("--older-than", "30", "--apply")
    with ledger.read() as session:
        assert session.scalars(asked).all() == [{"days": 30, "apply": True}]
