"""What an object is and how long it may be cached, by its key's ending: one table for S3, the API and any other server.

Segments, init segments and sprite sheets never change under their name (a chunk made again gives the same bytes), so
they may be kept for ever. Playlists and reports grow while a replay is being made, so a cache must ask first.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

_FOREVER: Final = "public, max-age=31536000, immutable"
_ASK_FIRST: Final = "no-cache"
_HOUR: Final = "public, max-age=3600"

# Media types are those registered at IANA; HLS playlists and fragmented MP4 as Apple's authoring specification wants.
_TABLE: Final[dict[str, tuple[str, str]]] = {
    ".m3u8": ("application/vnd.apple.mpegurl", _ASK_FIRST),
    ".m4s": ("video/mp4", _FOREVER),
    ".mp4": ("video/mp4", _FOREVER),
    ".m4a": ("audio/mp4", _FOREVER),
    ".aac": ("audio/aac", _FOREVER),
    ".ts": ("video/mp2t", _FOREVER),
    ".webm": ("video/webm", _FOREVER),
    ".mkv": ("video/matroska", _FOREVER),
    ".mov": ("video/quicktime", _FOREVER),
    ".flv": ("video/x-flv", _FOREVER),
    # A poster may be chosen anew; sprite sheets are named by the storyboard, which a cache asks for first.
    ".jpg": ("image/jpeg", _HOUR),
    ".jpeg": ("image/jpeg", _HOUR),
    ".png": ("image/png", _HOUR),
    ".webp": ("image/webp", _HOUR),
    ".vtt": ("text/vtt; charset=utf-8", _ASK_FIRST),
    ".json": ("application/json", _ASK_FIRST),
    ".html": ("text/html; charset=utf-8", _ASK_FIRST),
    ".css": ("text/css; charset=utf-8", _HOUR),
    ".js": ("text/javascript; charset=utf-8", _HOUR),
    ".svg": ("image/svg+xml", _HOUR),
    ".txt": ("text/plain; charset=utf-8", _ASK_FIRST),
}
_UNKNOWN: Final = ("application/octet-stream", _ASK_FIRST)


def content_type(key: str) -> str:
    """The media type (RFC 9110 Content-Type) of the object `key`."""
    return _row(key)[0]


def cache_control(key: str) -> str:
    """How long the object `key` may be cached (RFC 9111 Cache-Control)."""
    return _row(key)[1]


def _row(key: str) -> tuple[str, str]:
    return _TABLE.get(PurePosixPath(key).suffix.lower(), _UNKNOWN)
