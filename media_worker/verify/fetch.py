"""Reads playlists and segments over http, https and from local files, within bounds of size and time.

A stranger's playlist chooses what is read here. So: no other schemes, none reached by redirection, no local file from
a playlist that came over the network, no read without an upper bound.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

PLAYLIST_LIMIT_BYTES = 16 * 1024**2
SEGMENT_LIMIT_BYTES = 128 * 1024**2
_NETWORK = frozenset({"http", "https"})
_CHUNK = 64 * 1024


class FetchError(ValueError):
    """A playlist or segment could not be read; the message says why in one line."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A resource, or a byte range of one."""

    url: str
    start: int = 0
    length: int | None = None
    """None reads to the end."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _NetworkOnly(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if _scheme(newurl) not in _NETWORK:
            raise FetchError(f"{req.full_url} redirects to {newurl}, which is neither http nor https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError as error:
        raise FetchError(f"{url} is not an address: {error}") from error


def address(master: str) -> str:
    """The URL of a path or URL given by a person. Raises FetchError for schemes other than http, https and file."""
    scheme = _scheme(master)
    if scheme in _NETWORK or scheme == "file":
        return master
    if "://" in master:
        raise FetchError(f"{master}: only http, https and local files are read, not {scheme}")
    return Path(master).resolve().as_uri()


class Fetcher:
    """Reads for one verification. `root` decides whether local files may be read."""

    def __init__(
        self,
        root: str,
        *,
        timeout_seconds: float = 20.0,
        deadline_seconds: float = 120.0,
        segment_limit_bytes: int = SEGMENT_LIMIT_BYTES,
    ) -> None:
        self._local = urlsplit(root).scheme == "file"
        self._timeout_seconds = timeout_seconds
        self._deadline_seconds = deadline_seconds
        self._segment_limit_bytes = segment_limit_bytes
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _NetworkOnly(),
        ):
            self._opener.add_handler(handler)

    def playlist(self, url: str) -> str:
        """A playlist's text. Raises FetchError."""
        data = self._read(Ref(url), PLAYLIST_LIMIT_BYTES)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise FetchError(f"{url} is not UTF-8 text") from None

    def segment(self, ref: Ref) -> bytes:
        """A segment's bytes, or an init section's. Raises FetchError, also where a byte range is not all there."""
        if (ref.length or 0) > self._segment_limit_bytes:
            raise FetchError(f"{ref.url}: a byte range of {ref.length} bytes is over the limit")
        data = self._read(ref, self._segment_limit_bytes)
        if ref.length is not None and len(data) < ref.length:
            raise FetchError(f"{ref.url}: of the {ref.length} bytes from {ref.start}, only {len(data)} are there")
        return data

    def _read(self, ref: Ref, limit: int) -> bytes:
        scheme = _scheme(ref.url)
        if scheme in _NETWORK:
            return self._read_network(ref, limit)
        if scheme == "file" and self._local:
            return self._read_file(ref, limit)
        raise FetchError(f"{ref.url}: addresses of this kind are not read here")

    def _read_file(self, ref: Ref, limit: int) -> bytes:
        path = Path(urllib.request.url2pathname(urlsplit(ref.url).path))
        try:
            if not path.is_file():
                raise FetchError(f"{path} is not there" if not path.exists() else f"{path} is not a file")
            with path.open("rb") as file:
                file.seek(ref.start)
                return self._bounded(file, ref.length, limit, str(path))
        except (OSError, ValueError) as error:
            if isinstance(error, FetchError):
                raise
            raise FetchError(f"{path} cannot be read: {error}") from error

    def _read_network(self, ref: Ref, limit: int) -> bytes:
        request = urllib.request.Request(ref.url, headers={"User-Agent": "afterlive-verify"})  # noqa: S310 — http(s) only
        if ref.start or ref.length is not None:
            last = "" if ref.length is None else ref.start + ref.length - 1
            request.add_header("Range", f"bytes={ref.start}-{last}")
        try:
            with self._opener.open(request, timeout=self._timeout_seconds) as answer:
                if request.has_header("Range") and answer.status != 206:
                    raise FetchError(f"{ref.url}: the server ignores byte ranges")
                return self._bounded(answer, ref.length, limit, ref.url)
        except urllib.error.HTTPError as error:
            raise FetchError(f"{ref.url}: the server answers {error.code} {error.reason}") from error
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, FetchError):
                raise
            raise FetchError(f"{ref.url} cannot be read: {error}") from error

    def _bounded(self, source: _Readable, length: int | None, limit: int, name: str) -> bytes:
        ends = time.monotonic() + self._deadline_seconds
        data = bytearray()
        while length is None or len(data) < length:
            piece = source.read(_CHUNK if length is None else min(_CHUNK, length - len(data)))
            if not piece:
                break
            data += piece
            if len(data) > limit:
                raise FetchError(f"{name} is larger than {limit} bytes")
            if time.monotonic() > ends:
                raise FetchError(f"{name} took longer than {self._deadline_seconds:.0f} s")
        return bytes(data)
