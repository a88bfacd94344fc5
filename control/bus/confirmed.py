"""Publishing to RabbitMQ: confirmed, mandatory, and never longer than it may take.

kombu waits for half a minute and more where the broker is blocked by an alarm, whatever its timeouts, and knows no
`mandatory`; aio-pika keeps its word (both measured). It runs in a loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError, DeliveryError, PublishError
from celery import Celery
from kombu.serialization import dumps
from kombu.transport.native_delayed_delivery import calculate_routing_key

from control import telemetry
from control.bus.publish import Announcement, Outgoing
from control.bus.topology import BROADCASTS, DELAY, EVENTS, FAILURES, TASKS
from control.errors import AfterliveError, BrokerUnavailable, MessageRefused

try:  # half as costly
    from uvloop import new_event_loop
except ImportError:  # Windows
    from asyncio import new_event_loop  # type: ignore[assignment]

log = logging.getLogger("afterlive.publish")
# So many on their way at a time: 64 carried 5,300 messages a second to a quorum queue, one at a time 1,100.
_WINDOW: Final = 64
_T = TypeVar("_T")
_CLOSE_SECONDS: Final = 1.0
_UNREACHABLE: Final = (AMQPError, ConnectionError, OSError, TimeoutError, asyncio.CancelledError, RuntimeError)
_ANYTHING: Final = (Exception, asyncio.CancelledError)


class _Lost(BrokerUnavailable):
    """The broker did not take a message: {reason}."""  # and nothing is to be hoped for from this connection


class Confirmed:
    """A publisher over one connection, opened when first needed and after each loss."""

    def __init__(
        self, app: Celery, url: str, *, tls: ssl.SSLContext | None = None, timeout_seconds: float = 10
    ) -> None:
        self._app = app
        self._url = url
        self._tls = tls
        self._seconds = timeout_seconds
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._opening = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None

    def publish(self, messages: Sequence[Outgoing]) -> list[AfterliveError | None]:
        """In order; BrokerUnavailable for those that were not confirmed in time (they may be on the bus all the same),
        MessageRefused for those no queue takes, or takes now."""
        return self._run(self._publish(messages))

    def announce(self, events: Sequence[Announcement]) -> list[AfterliveError | None]:
        """As `publish`; that nobody listens is nothing to complain of."""
        return self._run(self._announce(events))

    def broadcast(self, word: dict[str, Any]) -> None:
        """To every worker that listens now. Raises BrokerUnavailable."""
        if problem := self._run(self._tell(BROADCASTS.name, "", word)):
            raise problem

    def close(self) -> None:
        """End connection and thread; whoever still waits for a confirmation is told that there was none."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
            if loop is not None and thread is not None:
                asyncio.run_coroutine_threadsafe(self._end(), loop)
                thread.join(5 * _CLOSE_SECONDS)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        with self._lock:
            if self._loop is None:
                self._loop = new_event_loop()
                self._opening = asyncio.Lock()  # which remembers the loop it was first waited for in
                self._thread = threading.Thread(target=_serve, args=[self._loop], name="publisher", daemon=True)
                self._thread.start()
            waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        return waiting.result()

    async def _publish(self, messages: Sequence[Outgoing]) -> list[AfterliveError | None]:
        found: list[AfterliveError | None] = []
        try:
            async with asyncio.timeout(self._seconds):
                channel = await self._open()
        except _UNREACHABLE as error:
            return [BrokerUnavailable(reason=_said(error))] * len(messages)
        for first in range(0, len(messages), _WINDOW):
            window = messages[first : first + _WINDOW]
            found += await asyncio.gather(*(self._one(channel, message) for message in window))
            if any(isinstance(problem, _Lost) for problem in found):
                # Those after it would wait as long, one window after the other.
                others = len(messages) - len(found)
                found += [BrokerUnavailable(reason="it did not take one before it")] * others
                await self._drop(channel)
                break
        return found

    async def _announce(self, events: Sequence[Announcement]) -> list[AfterliveError | None]:
        found: list[AfterliveError | None] = []
        for first in range(0, len(events), _WINDOW):
            window = events[first : first + _WINDOW]
            # Those after one that was lost would wait as long, one window after the other.
            if lost := next((problem for problem in found if problem is not None), None):
                found += [lost] * len(window)
            else:
                found += await asyncio.gather(*(self._tell(EVENTS.name, one.name, one.body) for one in window))
        return found

    async def _tell(self, exchange: str, routing_key: str, body: dict[str, Any]) -> AfterliveError | None:
        """To whoever listens; nobody is fine."""
        made = aio_pika.Message(
            json.dumps(body).encode(),
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        channel = None
        try:
            async with asyncio.timeout(self._seconds):
                channel = await self._open()
                target = await channel.get_exchange(exchange, ensure=False)
                await target.publish(made, routing_key, mandatory=False)
        except _ANYTHING as error:
            if not _unreachable(error):
                raise
            await self._drop(channel)
            return BrokerUnavailable(reason=_said(error))
        return None

    async def _one(self, channel: AbstractChannel, message: Outgoing) -> AfterliveError | None:
        started = time.perf_counter()
        exchange, routing_key, sealed = _sealed(self._app, message)
        try:
            target = await channel.get_exchange(exchange, ensure=False)
            await target.publish(sealed, routing_key, mandatory=True, timeout=self._seconds)
        except PublishError:  # returned: neither a queue nor the alternate exchange took it
            return MessageRefused(task=message.spec.name, reason="no queue takes it: run 'afterlive topology'")
        except DeliveryError:
            reason = f"the queue {message.queue} refused it: it is full, or moving"
            return MessageRefused(task=message.spec.name, reason=reason)
        except _ANYTHING as error:
            if not _unreachable(error):
                raise
            return _Lost(reason=_said(error))
        telemetry.PUBLISH_SECONDS.observe(time.perf_counter() - started)
        return None

    async def _open(self) -> AbstractChannel:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                await self._drop(self._channel)
                connection = await aio_pika.connect(self._url, ssl_context=self._tls, timeout=self._seconds)
                try:
                    self._channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                except BaseException:
                    await _hang_up(connection)
                    raise
                self._connection = connection
            return self._channel

    async def _drop(self, channel: AbstractChannel | None) -> None:
        """Unless another one is in use by now."""
        if channel is self._channel and self._connection is not None:
            connection, self._connection, self._channel = self._connection, None, None
            await _hang_up(connection)

    async def _end(self) -> None:
        await self._drop(self._channel)
        loop = asyncio.get_running_loop()
        waiting = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=_CLOSE_SECONDS) if waiting else None
        loop.stop()


def _unreachable(error: BaseException) -> bool:
    """aiormq ends what waits for a connection that another thread closes with a bare Exception."""
    return isinstance(error, _UNREACHABLE) or type(error) is Exception


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _hang_up(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await connection.close()
    except _UNREACHABLE as error:
        log.debug("the connection ended hard: %s", _said(error))


def _sealed(app: Celery, message: Outgoing) -> tuple[str, str, aio_pika.Message]:
    """Exchange, routing key and the message in Celery's protocol (version 2)."""
    canvas = dict(message.canvas)
    made: Any = app.amqp.as_task_v2(
        message.task_id,
        message.spec.name,
        kwargs=message.payload,
        retries=message.retries,
        ignore_result=True,
        callbacks=canvas.pop("link", None),
        errbacks=canvas.pop("link_error", None),
        **message.shown(),
        **canvas,
    )
    content_type, encoding, body = dumps(made.body, serializer="json")
    exchange, routing_key = TASKS.name, message.routing_key
    if message.failure is not None:
        exchange = FAILURES.name
    elif message.delay_seconds:
        exchange, routing_key = DELAY, calculate_routing_key(message.delay_seconds, routing_key)
    sealed = aio_pika.Message(
        body if isinstance(body, bytes) else str(body).encode(),
        headers={**made.headers, **message.headers(app)},
        content_type=content_type,
        content_encoding=encoding,
        correlation_id=message.task_id,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    return exchange, routing_key, sealed


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
