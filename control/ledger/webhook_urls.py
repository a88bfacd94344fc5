"""Where a webhook may go: URLs as they are given, and the addresses their hosts turn out to have.

Whoever may register an endpoint has our machines send requests. So none goes to a place that only they can reach.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from control.errors import WebhookUrlRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_LONGEST: Final = 2000
_PORTS: Final = {"https": 443, "http": 80}
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_COMPATIBLE: Final = ipaddress.ip_network("::/96")  # RFC 4291, 2.5.5.1
_LOCAL_NAMES: Final = ("localhost", "localdomain", "local", "internal", "home.arpa", "onion")


def check_url(
    url: str, *, allow_private: bool = False, allow_http: bool = False, ports: Collection[int] = ()
) -> tuple[str, int]:
    """The host and port of a URL that may be sent to, as far as that can be told without asking anybody who the host
    is. `ports`: the only ones allowed; empty is any. Raises WebhookUrlRefused."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url or len(url) > _LONGEST:
        raise WebhookUrlRefused(reason=f"it is not a URL of at most {_LONGEST} ASCII characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise WebhookUrlRefused(reason="it is not a URL") from None
    if parts.scheme not in (("https", "http") if allow_http else ("https",)):
        raise WebhookUrlRefused(reason="it does not start with https://")
    if "@" in parts.netloc:
        raise WebhookUrlRefused(reason="it has a user name or a password in it")
    if parts.fragment or "#" in url:
        raise WebhookUrlRefused(reason="it has a fragment, which is never sent")
    if not host or "%" in host:
        raise WebhookUrlRefused(reason="it names no host")
    port = _PORTS[parts.scheme] if port is None else port
    if port == 0 or (ports and port not in ports):
        raise WebhookUrlRefused(reason=f"the port {port} is not one that webhooks may go to")
    _check_host(host, allow_private=allow_private)
    return host, port


def _check_host(host: str, *, allow_private: bool) -> None:
    if allow_private:
        return
    literal = literal_address(host)
    name = host.rstrip(".").lower()
    if (literal is not None and not is_public(literal)) or any(
        name == local or name.endswith(f".{local}") for local in _LOCAL_NAMES
    ):
        raise WebhookUrlRefused(reason="its host is in a private network")


def literal_address(host: str) -> Address | None:
    """The address, where the host is one; in all the forms the operating system takes for one (`127.1`,
    `2130706433`, `0x7f000001`)."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    except OSError:
        return None


def is_public(address: Address) -> bool:
    """Whether it is somebody's on the Internet: no private, loopback, link-local, multicast, reserved or unspecified
    one (IANA's registries), however it is wrapped into another."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _wrapped(address)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local or address.scope_id:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not address.is_loopback
        and not address.is_link_local
    )


def _wrapped(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a packet to this one ends at."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or address in _COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
