"""HTTP clients that cost little: the machine's cores are for what is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.platform import API_KEY

CLIENTS: Final = 16


@dataclass
class Answers:
    """What the clients were told."""

    accepted: list[str] = field(default_factory=list)
    """Streams whose end was answered with a 2xx."""
    refused: list[str] = field(default_factory=list)
    """First lines of other answers."""
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.accepted) / self.seconds


def end_streams(port: int, streams: Iterator[str], seconds: float) -> Answers:
    """POST /streams/{id}/end for one after the other, over CLIENTS connections that stay open, each with one request at
    a time; until `seconds` have passed, or the server is gone."""
    return asyncio.run(_all(port, streams, seconds))


async def _all(port: int, streams: Iterator[str], seconds: float) -> Answers:
    found = Answers()
    started = time.monotonic()
    await asyncio.gather(*(_one(port, streams, started + seconds, found) for _ in range(CLIENTS)))
    found.seconds = time.monotonic() - started
    return found


async def _one(port: int, streams: Iterator[str], until: float, found: Answers) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < until and (stream := next(streams, None)):
            writer.write(
                f"POST /streams/{stream}/end HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                f"X-API-Key: {API_KEY}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(head))
            if head.startswith(b"HTTP/1.1 2"):
                found.accepted.append(stream)
            else:
                found.refused.append(head.partition(b"\r\n")[0].decode())
        writer.close()
    except (OSError, asyncio.IncompleteReadError):
        return  # it was killed, which is what some of this is about


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
