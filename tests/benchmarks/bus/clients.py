"""HTTP clients that cost little: the machine's cores are for what is measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.platform import API_KEY

CLIENTS: Final = 16


@dataclass
class Answers:
    """What the clients were told."""

    accepted: list[str] = field(default_factory=list)
    """What was answered with a 2xx, by the name it was given."""
    refused: list[str] = field(default_factory=list)
    """Status and beginning of other answers."""
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.accepted) / self.seconds


Request = tuple[str, bytes]
"""A name of one's own, and all of the HTTP request."""


def post_all(port: int, requests: Iterator[Request], seconds: float) -> Answers:
    """One after the other, over CLIENTS connections that stay open, each with one request at a time; until `seconds`
    have passed, or the server is gone."""
    return asyncio.run(_all(port, requests, seconds))


def form_post(path: str, body: bytes) -> bytes:
    """A form, as a browser or a payment gateway sends it."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def json_post(path: str, body: dict[str, Any]) -> bytes:
    """JSON, with the key."""
    made = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(made)}\r\n\r\n"
    )
    return head.encode() + made


class Connection:
    """One that stays open, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def open(port: int) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", port))

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        return int(head[9:12]), await self._reader.readexactly(_length(head))

    def close(self) -> None:
        self._writer.close()


async def _all(port: int, requests: Iterator[Request], seconds: float) -> Answers:
    found = Answers()
    started = time.monotonic()
    await asyncio.gather(*(_one(port, requests, started + seconds, found) for _ in range(CLIENTS)))
    found.seconds = time.monotonic() - started
    return found


async def _one(port: int, requests: Iterator[Request], until: float, found: Answers) -> None:
    try:
        connection = await Connection.open(port)
        while time.monotonic() < until and (request := next(requests, None)):
            status, body = await connection.call(request[1])
            if 200 <= status < 300:
                found.accepted.append(request[0])
            else:
                found.refused.append(f"{status} {body[:200]!r}")
        connection.close()
    except (OSError, asyncio.IncompleteReadError):
        return  # it was killed, which is what some of this is about


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
