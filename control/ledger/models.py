"""The tables. Who may change what, and when, is in the module of each noun."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from control.ledger.base import ID_LENGTH, Base


class Stream(Base):
    """A live stream: `live`, then `ended`."""

    __tablename__ = "streams"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    title: Mapped[str]
    seller_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    recording: Mapped[str | None]
    state: Mapped[str] = mapped_column(String(16), index=True)
    created_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]


class Replay(Base):
    """What is made of a stream's recording: waiting, probing, transcoding; completed, failed or cancelled."""

    __tablename__ = "replays"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"), unique=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    run: Mapped[int] = mapped_column(default=1)
    """Grows with each retry; answers of an earlier run do not count."""
    source: Mapped[str]
    prefix: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)
    """Grows with each change, those of its parts included."""
    # With the keyframes of hours: not read with each look at the replay, but when it is asked for.
    info: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    """control.bus.messages.MediaInfo"""
    plan: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    """control.bus.messages.Plan"""
    inits: Mapped[dict[str, Any] | None]
    """Hash of each rung's init segment, of the first chunk that was done: all others must have the same."""
    notes: Mapped[list[Any] | None]
    frames_total: Mapped[int] = mapped_column(default=0)
    published_chunks: Mapped[int] = mapped_column(default=0)
    """How many chunks the playlists in the store hold."""
    publishing_since: Mapped[datetime | None]
    """Somebody writes playlists right now."""
    problem_code: Mapped[str | None] = mapped_column(String(64))
    problem_detail: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    planned_at: Mapped[datetime | None]
    playable_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cleaned_at: Mapped[datetime | None]
    """When what a cancelled or failed one left in the store was seen to."""


class Part(Base):
    """One task's worth of a replay: pending, sent; done, failed or cancelled."""

    __tablename__ = "parts"
    __table_args__ = (Index("parts_by_state", "replay_id", "kind", "state", "number"),)

    replay_id: Mapped[str] = mapped_column(ForeignKey("replays.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    """recording, chunk, audio or pictures"""
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    sent_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None]
    done_frames: Mapped[int] = mapped_column(default=0)
    total_frames: Mapped[int] = mapped_column(default=0)
    fps: Mapped[float] = mapped_column(default=0.0)
    result: Mapped[dict[str, Any] | None]
    """The worker's answer; of a chunk that must be made again in part, what is kept of it."""
    refused: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """How often a worker could not have its encoder, since it was planned."""


class OutboxRow(Base):
    """A message that was decided on in a transaction and is not yet known to be on the bus."""

    __tablename__ = "outbox"
    # An id that came again could be taken for the message that had it before, and removed unsent.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012  (SQLAlchemy's own form)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    task_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    """The message's id, however often it is sent; None only of rows an older version of this program left."""
    task: Mapped[str] = mapped_column(String(ID_LENGTH))
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    available_at: Mapped[datetime] = mapped_column(index=True)


class EventRow(Base):
    """Something that happened to a stream, for whoever follows it. Never changed."""

    __tablename__ = "events"
    __table_args__ = (Index("events_by_stream", "stream_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"))
    name: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
