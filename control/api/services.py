"""What the handlers work with: one object for the app's whole life, and the links it hands out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from fastapi import Request

from control.api.signing import sign
from control.errors import ConfigurationError
from control.ledger.engine import Ledger
from control.ledger.group import GroupCommit
from control.ledger.streams import Ending
from control.ledger.views import StreamView
from control.settings import Settings
from control.storage.base import ObjectStore
from control.web.pages import Pages

SHORTEST_SECRET_BYTES = 16


@dataclass(frozen=True)
class Services:
    """Settings, ledger, store and pages of one app."""

    settings: Settings
    ledger: Ledger
    store: ObjectStore
    wake: Callable[[], None]
    """Called after a fact was committed, so that the relay need not wait for its next look."""
    secret: bytes
    endings: GroupCommit[Ending, StreamView]
    """Streams that end: many may at the same time."""
    refresh: Callable[[], None] = lambda: None
    """Brings gauges up to date that are read from the ledger."""
    pages: Pages = field(default_factory=Pages)
    closing: threading.Event = field(default_factory=threading.Event)
    """Set it to let open event streams end before the server stops."""

    def link(self, request: Request, stream_id: str) -> Link:
        """A fresh playback link for one stream."""
        base = (self.settings.api.public_url or str(request.base_url)).rstrip("/")
        expires_at = int(time.time()) + self.settings.api.playback_link_seconds
        return Link(f"{base}/play/{quote(stream_id, safe='')}/{sign(self.secret, stream_id, expires_at)}/", expires_at)


@dataclass(frozen=True)
class Link:
    """A playback link: its folder's URL and when it ends (Unix seconds)."""

    url: str
    expires_at: int


def services_of(request: Request) -> Services:
    """The app's services."""
    found = request.app.state.services
    assert isinstance(found, Services)  # noqa: S101  (narrows the type; create_app puts it there)
    return found


async def services(request: Request) -> Services:
    """As a dependency. (One that is no coroutine costs each request a trip to another thread.)"""
    return services_of(request)


def signing_secret(settings: Settings) -> bytes:
    """The secret that signs playback links. Raises ConfigurationError where it is missing or too short."""
    secret = settings.api.signing_secret
    value = secret.get_secret_value().encode() if secret else b""
    if len(value) < SHORTEST_SECRET_BYTES:
        raise ConfigurationError(
            setting="AFTERLIVE_API_SIGNING_SECRET", reason=f"it must have at least {SHORTEST_SECRET_BYTES} bytes"
        )
    return value
