"""The HTTP API, put together."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

from control.api import (
    analytics,
    events,
    failed,
    health,
    mails,
    metrics,
    nodes,
    orders,
    otp,
    payments,
    playback,
    problems,
    products,
    redaction,
    streams,
    tasks,
    webhooks,
)
from control.api.auth import KeyGate, KeyRing
from control.api.middleware import AnnouncedBodyLimit, Observe
from control.api.openapi import openapi
from control.api.services import Services, signing_secret
from control.ledger.engine import Ledger
from control.ledger.group import GroupCommit
from control.settings import Settings
from control.storage.base import ObjectStore

log = logging.getLogger(__name__)

DESCRIPTION = """\
What happens after the live moment: a stream ends, and its replay is playable at once.

Every request needs an API key (`Authorization: Bearer KEY`, `X-API-Key: KEY`, or HTTP Basic with the key as the
password), except health, playback links and payment gateways' notices. Every error is a problem document (RFC 9457);
switch on its `code`."""
TAGS = [
    {"name": "streams", "description": "Streams and their replays."},
    {"name": "tasks", "description": "Tasks on the bus: whether they run, and how they ended."},
    {"name": "failed tasks", "description": "Tasks that failed finally: to look through, to do again or to put aside."},
    {"name": "one-time passwords", "description": "Codes by text message: each is right once."},
    {"name": "products", "description": "What sellers sell, and how much there is of it."},
    {"name": "orders", "description": "Stock is kept for an order until it is paid; what is paid is confirmed once."},
    {"name": "payments", "description": "Orders are paid through a gateway, which tells how each payment ended."},
    {"name": "webhooks", "description": "Other systems that are told of what happens, signed and tried for a day."},
    {"name": "mails", "description": "Mails and other messages to people, bulk sends, and where sellers are told."},
    {"name": "analytics", "description": "What was watched and sold, by stream and by day."},
    {"name": "nodes", "description": "Media workers, and what each can encode with."},
    {"name": "playback", "description": "What a signed, expiring playback link opens. No key needed."},
    {"name": "operations", "description": "Health and metrics."},
]


def create_app(
    settings: Settings,
    ledger: Ledger,
    store: ObjectStore,
    *,
    wake: Callable[[], None] = lambda: None,
    refresh: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The API over a ledger and an object store.

    `wake` is called after each committed fact, so the relay need not wait for its next look; `refresh` before metrics
    are shown. Set
    `app.state.services.closing` to let open event streams end before the server stops.
    Raises ConfigurationError where settings.api.signing_secret is missing or short.
    """
    keys = KeyRing(settings.api.keys)
    if not len(keys):
        log.warning("no API key is set (AFTERLIVE_API_KEYS): only health and playback links will answer")
    app = FastAPI(
        title="Afterlive",
        version="0.1.0",
        summary="Replays of live streams, playable at once.",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,  # ours needs no scripts from elsewhere
        redoc_url=None,
    )
    app.state.services = Services(
        settings, ledger, store, wake, signing_secret(settings), GroupCommit(ledger, streams.end_all), refresh
    )
    # Each request is held against one after the other: those that come by the thousand first.
    rush = (orders, payments, otp, products, analytics)
    operations = (nodes, health, metrics)
    for part in (*rush, streams, events, tasks, failed, webhooks, mails, *operations, playback):
        app.include_router(part.router, max_body_size=problems.LARGEST_BODY_BYTES)
    orders.install(app)
    otp.install(app)
    payments.install(app, settings, ledger)
    problems.install(app)
    redaction.install()
    playback.install(app)
    app.add_api_route("/docs", lambda: _docs(app), include_in_schema=False, response_class=HTMLResponse)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    # The last one added is the outermost: whatever comes without a key is observed too.
    app.add_middleware(AnnouncedBodyLimit)
    app.add_middleware(KeyGate, keys=keys)
    app.add_middleware(Observe)
    return app


def _docs(app: FastAPI) -> Response:
    found: Services = app.state.services
    headers = playback.page_headers(style=found.pages.style_hash("docs.css"))
    return HTMLResponse(found.pages.docs(app.openapi()), headers=headers)
