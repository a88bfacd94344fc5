"""`POST /webhooks/payment/{gateway}`: a payment gateway's notices. No key: a signature says who it is.

A notice is in the ledger when it is answered; what it means, a task finds out. Kept light, as many come at once when a
live sells: no framework's validation, no other thread but the group's that commits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control import telemetry
from control.errors import NoticeForged, NoticeUnreadable
from control.gateways import NOTICES
from control.gateways.base import PaymentGateway
from control.ledger import payment_notices
from control.ledger.engine import Ledger
from control.ledger.group import GroupCommit
from control.ledger.payment_notices import Told

log = logging.getLogger(__name__)
LARGEST_BYTES: Final = 16 * 1024
_RETRY: Final = {"Retry-After": "5"}


def install(app: FastAPI, ledger: Ledger, gateways: dict[str, PaymentGateway]) -> None:
    """Take in notices of these gateways, by name."""
    notices: GroupCommit[Told, bool] = GroupCommit(ledger, payment_notices.keep)
    take = _endpoint(gateways, notices)

    async def told(request: Request) -> Response:
        request.scope["route"] = route  # what metrics count by; FastAPI notes its own routes alone
        return await take(request)

    route = Route(NOTICES + "{gateway}", told, methods=["POST"])
    app.router.routes.insert(0, route)


def _endpoint(
    gateways: dict[str, PaymentGateway], notices: GroupCommit[Told, bool]
) -> Callable[[Request], Awaitable[Response]]:
    async def take(request: Request) -> Response:
        gateway = gateways.get(request.path_params["gateway"])
        if gateway is None:
            return _said(404, "no such gateway")
        body = await _body(request)
        if body is None:
            return _said(413, "too large")
        try:
            notice = gateway.receive(body)
        except NoticeForged as error:
            _refused(gateway, "forged", error)
            return _said(403, "CheckMacValue Error")
        except NoticeUnreadable as error:
            _refused(gateway, "unreadable", error)
            return _said(400, "unreadable")
        try:
            new = await asyncio.wrap_future(notices.submit((gateway.name, notice)))
        except OperationalError as error:
            log.error("ledger unavailable: %s", type(error).__name__)  # noqa: TRY400  (its words have the notice in them)
            return Response("0|try again later", 503, _RETRY, "text/plain")
        telemetry.PAYMENT_NOTICES.labels(gateway.name, "stored" if new else "known").inc()
        return Response(gateway.accepted, media_type="text/plain")

    return take


async def _body(request: Request) -> bytes | None:
    """None where it is larger than any notice."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _refused(gateway: PaymentGateway, why: str, error: NoticeForged | NoticeUnreadable) -> None:
    telemetry.PAYMENT_NOTICES.labels(gateway.name, why).inc()
    log.warning("a notice of %s was refused: %s", gateway.name, error.detail)


def _said(status: int, reason: str) -> Response:
    """In the words gateways know."""
    return Response(f"0|{reason}", status, media_type="text/plain")
