"""Playback links: whoever holds one may watch one stream until it expires. Pure.

A link's secret part is `{expires}-{signature}`: the Unix time it ends and, base64url without padding, the HMAC-SHA256
of stream id and end. It is a folder of the URL, so the relative addresses in playlists carry it along.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from control.errors import AfterliveError

_TOKEN = re.compile(r"([1-9][0-9]{0,11})-([A-Za-z0-9_-]{43})")


class LinkInvalid(AfterliveError):
    """This playback link is not valid."""

    code = "link-invalid"


class LinkExpired(AfterliveError):
    """This playback link has expired."""

    code = "link-expired"


def sign(secret: bytes, stream_id: str, expires_at: int) -> str:
    """The link's secret part for `stream_id` until `expires_at` (Unix seconds)."""
    # The purpose is signed too: no signature made with the same secret for something else is ever a link.
    message = f"afterlive playback 1\n{stream_id}\n{expires_at}".encode()
    digest = hmac.digest(secret, message, hashlib.sha256)
    return f"{expires_at}-{base64.urlsafe_b64encode(digest).rstrip(b'=').decode('ascii')}"


def verify(secret: bytes, stream_id: str, token: str, now: float) -> int:
    """When the link ends (Unix seconds). Raises LinkInvalid, and LinkExpired where it was good once."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise LinkInvalid
    expires_at = int(match[1])
    if not hmac.compare_digest(sign(secret, stream_id, expires_at).encode(), token.encode()):
        raise LinkInvalid
    if now >= expires_at:
        raise LinkExpired
    return expires_at
