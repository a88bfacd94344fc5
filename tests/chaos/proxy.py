"""A network between two programs that can be cut: a TCP proxy with moods, asyncio in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, Literal

from tests import services

Mood = Literal["pass", "drop", "reset", "black hole", "slow"]
_LATENCY_SECONDS: Final = 0.15
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST, and forget what was not sent


class Proxy:
    """Passes bytes on to a port of the loopback interface, or does what `set` says:

    - drop: connections end (FIN), new ones too, before a byte is passed on;
    - reset: the same with RST;
    - black hole: connections stay, new ones are taken, no byte arrives. Afterwards what was sent meanwhile goes on its
      way, as TCP sends it again after a cable was out;
    - slow: whatever is sent arrives 0.15 s late, in each direction.
    """

    def __init__(self, target_port: int) -> None:
        self.port = services.free_port()
        self._target = target_port
        self._mood: Mood = "pass"
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{target_port}", daemon=True)
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        self._thread.start()
        self._do(self._listen())

    def stop(self) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def set(self, mood: Mood) -> None:
        """From now on, for connections that are and those to come."""
        self._do(self._change(mood))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        self._open.set()
        self._cut("drop")
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks, timeout=2)

    async def _change(self, mood: Mood) -> None:
        self._mood = mood
        if mood == "black hole":
            self._open.clear()
        else:
            self._open.set()
        if mood in ("drop", "reset"):
            self._cut(mood)

    def _cut(self, mood: Mood) -> None:
        for writer in list(self._writers):
            _close(writer, hard=mood == "reset")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mood in ("drop", "reset"):
            _close(writer, hard=self._mood == "reset")
            return
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            await self._open.wait()
            answers, upstream = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(upstream)
            await asyncio.gather(self._pump(reader, upstream), self._pump(answers, writer))
        except OSError:
            pass  # the server is away, or one side was cut: so is the other
        finally:
            for end in (writer, upstream):
                if end is not None:
                    self._writers.discard(end)
                    _close(end)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self._mood == "slow":
                await asyncio.sleep(_LATENCY_SECONDS)
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        await self._open.wait()
        with suppress(OSError):
            writer.write_eof()


def _close(writer: asyncio.StreamWriter, *, hard: bool = False) -> None:
    if hard:
        with suppress(OSError):
            found: socket.socket = writer.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        writer.transport.abort()
    else:
        writer.close()
