"""The claim to write a replay's playlists, renewed for as long as somebody really does.

A worker that is killed cannot give its claim back: it runs out by itself, and soon.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime
from types import TracebackType
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from control.ledger import replays
from control.ledger.engine import Ledger

log = logging.getLogger("afterlive.publish")
RENEW_SECONDS: Final = replays.PUBLISHING_LEASE_SECONDS / 4


class Claim:
    """Renews while the block runs; `at` is the claim as the ledger has it after that."""

    def __init__(self, ledger: Ledger, replay_id: str, at: datetime, *, every_seconds: float = RENEW_SECONDS) -> None:
        self.at = at
        self._ledger = ledger
        self._replay_id = replay_id
        self._every_seconds = every_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"claim-{replay_id}", daemon=True)

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._over.wait(self._every_seconds):
            try:
                with self._ledger.write() as session:
                    at = replays.renew_publishing(session, self._replay_id, self.at)
            except SQLAlchemyError as error:
                log.warning("the claim on %s was not renewed: %s", self._replay_id, type(error).__name__)
                continue
            if at is None:
                log.warning("the claim on %s has run out", self._replay_id)
                return
            self.at = at
