"""Around every request: an id, metrics, safe headers and a limit on the body. Plain ASGI, so streams stay streams."""

from __future__ import annotations

import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control import tracing
from control.api.metrics import REQUESTS, SECONDS_TO_RESPONSE
from control.api.problems import LARGEST_BODY_BYTES, BodyTooLarge, problem_response

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


class Observe:
    """Gives each request an id (its own `X-Request-ID` where it has a sound one), counts it and times its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 500  # what a client gets where the app dies before it answers

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                # To the first byte, not the last: an event stream or a slow viewer is not a slow server.
                SECONDS_TO_RESPONSE.labels(scope["method"], _route(scope)).observe(time.perf_counter() - started)
            await send(message)

        with tracing.request(scope["method"], Headers(scope=scope).get(tracing.HEADER)) as traced:
            try:
                await self._app(scope, receive, answer)
            finally:
                REQUESTS.labels(scope["method"], _route(scope), str(status)).inc()
                # By its route, not its path: paths of playback are keys to what they lead to.
                traced.name(f"{scope['method']} {_route(scope)}")
                traced.note(request_id=request_id, status=status)
                if status >= 500:
                    traced.failed(str(status))


class AnnouncedBodyLimit:
    """Answers 413 to a body that says it is too large, before any of it is read.

    One that does not say is cut off by FastAPI's `max_body_size`, whose own answer here would be no problem document.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            announced = Headers(scope=scope).get("content-length", "")
            if announced.isdigit() and int(announced) > LARGEST_BODY_BYTES:
                response = problem_response(Request(scope), BodyTooLarge(limit=LARGEST_BODY_BYTES))
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _route(scope: Scope) -> str:
    """The route's template: a label with few values, unlike the path."""
    return getattr(scope.get("route"), "path", "none")
