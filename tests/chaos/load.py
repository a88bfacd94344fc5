"""Work that comes in while things break: sales through the outbox, streams that end through the API."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from control.ledger import outbox
from control.ledger.engine import Ledger
from tests import chores

_METADATA: Final = MetaData()
ACCEPTED: Final = Table("test_accepted", _METADATA, Column("number", Integer, primary_key=True))
_SALES_AT_A_TIME: Final = 4
_SALES_EVERY_SECONDS: Final = 0.1
_STREAM_EVERY_SECONDS: Final = 6.0


def prepare(ledger: Ledger) -> None:
    """Make the table that what was accepted is in: as a commit whose answer is lost may have happened or not, the
    database alone can tell."""
    with ledger.write() as session:
        _METADATA.create_all(session.connection())


def accepted(ledger: Ledger) -> int:
    with ledger.read() as session:
        return session.scalar(select(func.count()).select_from(ACCEPTED)) or 0


class Load:
    """A context manager: sales and streams until the block ends."""

    numbers = itertools.count()
    streams = itertools.count()

    def __init__(self, ledger: Ledger, client: httpx.Client, recordings: Sequence[Path]) -> None:
        self.ended: dict[str, str] = {}
        """Streams that ended, each with its recording's name."""
        self._ledger = ledger
        self._client = client
        self._recordings = recordings
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._sell, self._stream)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "the load does not end"

    def _sell(self) -> None:
        while not self._stopped.wait(_SALES_EVERY_SECONDS):
            numbers = [next(self.numbers) for _ in range(_SALES_AT_A_TIME)]
            try:
                with self._ledger.write() as session:
                    session.execute(insert(ACCEPTED), [{"number": number} for number in numbers])
                    for number in numbers:
                        outbox.add(session, chores.SELL, {"number": number})
            except SQLAlchemyError:
                continue  # whoever sells is told that it was not accepted

    def _stream(self) -> None:
        for number in self.streams:
            recording = self._recordings[number % len(self._recordings)]
            name = f"live-{number}"
            # As a media server does: until it is told that the fact is known. Both may be said again.
            while not (
                self._post("/streams", {"id": name, "title": name, "recording": recording.name})
                and self._post(f"/streams/{name}/end", {})
            ):
                if self._stopped.wait(0.3):
                    return  # it may have ended all the same; then its replay is made, and counts for nothing here
            self.ended[name] = recording.name
            if self._stopped.wait(_STREAM_EVERY_SECONDS):
                return

    def _post(self, path: str, body: dict[str, str]) -> bool:
        try:
            return self._client.post(path, json=body).is_success
        except httpx.HTTPError:
            return False
