"""API keys: without one, only health answers; playback links and payment gateways' notices carry their own proof.

A key comes as `Authorization: Bearer KEY`, as `X-API-Key: KEY`, or as the password of HTTP Basic, so that a browser
can open the documentation.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from control.api.problems import CrossSiteRefused, KeyRequired, problem_response

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
SIGNED_PREFIX = "/play/"
"""Everything under it checks a playback link itself."""
NOTICES_PREFIX = "/webhooks/payment/"
"""Everything under it checks a payment gateway's signature itself."""
_SIGNED = (SIGNED_PREFIX, NOTICES_PREFIX)
CHALLENGE = 'Bearer realm="afterlive", Basic realm="afterlive", charset="UTF-8"'


class KeyRing:
    """The accepted keys, kept as hashes of one length, so a comparison tells nothing of a key."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._hashes = [_hash(key.get_secret_value()) for key in keys if key.get_secret_value()]

    def __len__(self) -> int:
        return len(self._hashes)

    def accepts(self, key: str) -> bool:
        """Whether `key` is one of them; takes as long whichever it is."""
        offered = _hash(key)
        found = False
        for known in self._hashes:
            found |= hmac.compare_digest(known, offered)
        return found


class KeyGate:
    """ASGI middleware that answers 401 to whatever comes without a key, known route or not."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or scope["path"].startswith(_SIGNED):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request = Request(scope)
        key, by_browser = offered_key(headers)
        if key is None or not self._keys.accepts(key):
            response = problem_response(request, KeyRequired(), headers={"WWW-Authenticate": CHALLENGE})
        elif by_browser and scope["method"] not in ("GET", "HEAD") and _foreign(headers):
            # A browser sends Basic credentials by itself, also on a form some other site submits.
            response = problem_response(request, CrossSiteRefused())
        else:
            await self._app(scope, receive, send)
            return
        await response(scope, receive, send)


def offered_key(headers: Headers) -> tuple[str | None, bool]:
    """The key a request offers (None without one), and whether it came by HTTP Basic."""
    if key := headers.get("x-api-key"):
        return key, False
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer":
        return credentials or None, False
    if scheme.lower() == "basic":
        try:
            _, colon, password = base64.b64decode(credentials, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None, True
        return (password if colon and password else None), True
    return None, False


def _foreign(headers: Headers) -> bool:
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
