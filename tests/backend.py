"""A running back end whose media tier needs no ffmpeg, and what a client sees of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import m3u8

from control.bus.embedded import Embedded
from control.ledger import outbox, parts, streams, views
from control.ledger.models import Part
from control.ledger.views import ReplayView
from control.settings import Settings
from control.storage import ObjectStore, open_store
from tests.bus import bus, until
from tests.fake_media import Studio


class Made:
    """A running back end, and what a client sees of it."""

    def __init__(self, running: Embedded) -> None:
        self.app = running.app
        self.settings = running.settings
        self.ledger = running.ledger
        self.store: ObjectStore = open_store(running.settings.storage)

    def end(self, stream_id: str = "s", recording: str = "60s.mp4") -> str:
        with self.ledger.write() as session:
            streams.create(session, title=stream_id, stream_id=stream_id)
            return streams.end(session, stream_id, recording=recording).id

    def do(self, action: Callable[..., Any], stream_id: str = "s") -> None:
        with self.ledger.write() as session:
            action(session, stream_id)

    def view(self, stream_id: str = "s") -> ReplayView:
        with self.ledger.read() as session:
            found = views.snapshot(session, stream_id).replay
        assert found
        return found

    def wait(self, state: str, stream_id: str = "s", seconds: float = 15) -> ReplayView:
        until(lambda: self.view(stream_id).state == state, f"{stream_id} is {state}", seconds)
        return self.view(stream_id)

    def events(self, stream_id: str = "s") -> list[str]:
        with self.ledger.read() as session:
            return [event.name for event in views.events_after(session, stream_id, 0)]

    def parts(self, replay_id: str, **where: str) -> dict[str, Part]:
        with self.ledger.read() as session:
            return {part.name: part for part in parts.of_replay(session, replay_id, **where)}

    def files(self, prefix: str) -> set[str]:
        return {key.removeprefix(prefix) for key in self.store.list(prefix)}

    def playlist(self, name: str) -> m3u8.M3U8:
        return m3u8.loads(self.store.get_bytes(self.view().prefix + name).decode())

    def settle(self) -> None:
        """Until nothing is on its way any more (what is to be sent later aside)."""

        def quiet() -> bool:
            with self.ledger.read() as session:
                return not outbox.oldest_due(session)

        until(quiet, "the outbox is empty")
        time.sleep(0.2)


@contextmanager
def backend(settings: Settings, studio: Studio) -> Iterator[Made]:
    with bus(settings, *studio.bodies()) as running:
        yield Made(running)


def with_media(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"media": settings.media.model_copy(update=changes)})
