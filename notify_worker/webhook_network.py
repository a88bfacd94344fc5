"""Connections to receivers of webhooks: only to addresses that may be sent to, and only for so long.

The host is looked up once, all its addresses are checked, and the connection goes to one of those: a name server that
answers otherwise the next time (DNS rebinding) is not asked again. TLS and the Host header keep the name.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpcore

from control.errors import WebhookUrlRefused
from control.ledger.webhook_urls import is_public

LookUp = Callable[[str, int], Sequence[str]]


def look_up(host: str, port: int) -> list[str]:
    """All addresses of a host, in the order they are to be tried. Raises OSError (socket.gaierror)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class Guarded(httpcore.NetworkBackend):
    """Connects to checked addresses; everything together takes no longer than `total_seconds` from now on."""

    def __init__(
        self, *, allow_private: bool, connect_seconds: float, total_seconds: float, look_up: LookUp = look_up
    ) -> None:
        self._allow_private = allow_private
        self._connect_seconds = connect_seconds
        self._deadline = time.monotonic() + total_seconds
        self._look_up = look_up
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002  (ours is the one that counts)
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises WebhookUrlRefused, httpcore.ConnectError and ConnectTimeout."""
        problem: Exception | None = None
        for address in self._addresses(host, port):
            try:
                seconds = min(self._connect_seconds, self._left())
                made = self._network.connect_tcp(address, port, seconds, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
            else:
                return _Bounded(made, self._left)
        raise problem or httpcore.ConnectError("its host has no address")

    def _addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            found = self._look_up(host, port)
        except (OSError, UnicodeError):
            raise httpcore.ConnectError("its host has no address") from None
        # One that is private is enough: who puts it among others means it to be tried.
        if not self._allow_private and not all(is_public(ipaddress.ip_address(address)) for address in found):
            raise WebhookUrlRefused(reason="its host is in a private network")
        return found

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left


class _Bounded(httpcore.NetworkStream):
    """A stream that ends in time, however slowly the other side goes on."""

    def __init__(self, inner: httpcore.NetworkStream, left: Callable[[], float]) -> None:
        self._inner = inner
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._inner.read(max_bytes, self._left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._inner.write(buffer, self._left())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        return _Bounded(self._inner.start_tls(ssl_context, server_hostname, self._left()), self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
