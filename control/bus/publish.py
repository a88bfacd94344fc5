"""Sending a task by its name, with the catalogue's policy: one way for the API's relay and for workers."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from celery import Celery
from celery.local import Proxy

from control import tracing
from control.bus.names import TaskSpec, routing_key
from control.bus.routing import queue_of
from control.bus.signing import signature
from control.bus.topology import BROADCASTS, FAILURES, exchange_of
from control.errors import AfterliveError

log = logging.getLogger("afterlive.publish")

# Headers of ours, in Unix milliseconds: whole numbers, as the AMQP library sends others in 32 bits, to the next two
# minutes. A wait that was asked for is not latency, so a delayed message carries the time it is due.
PUBLISHED_AT: Final = "afterlive_published_ms"
DEADLINE: Final = "afterlive_deadline_ms"
FIRST: Final = "afterlive_first_ms"
FAILURE: Final = "afterlive_failure"
_HIDDEN: Final = "***"
_LONGEST_PAUSE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Outgoing:
    """One message to be."""

    spec: TaskSpec
    payload: dict[str, Any]
    task_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    since: float = field(default_factory=time.time)
    """When what it is about happened (Unix seconds); its deadline counts from there."""
    delay_seconds: int = 0
    retries: int = 0
    canvas: dict[str, Any] = field(default_factory=dict)
    """What Celery keeps of the group, chain or chord a task is of."""
    first_ms: int | None = None
    """When the task was first sent, whatever became of it since."""
    published_ms: int | None = None
    """When it was first sent, where this only moves it elsewhere."""
    trace: str | None = field(default_factory=tracing.here)
    """What it belongs to (`control.tracing`): by default to what is done where it is made."""
    failure: dict[str, Any] | None = None
    """Not to be done any more, but to be reviewed: what became of it (`control.bus.failure`)."""

    @property
    def queue(self) -> str:
        """Where it goes: the task's own queue, or that of what its payload wants."""
        return queue_of(self.spec, self.payload)

    @property
    def routing_key(self) -> str:
        return routing_key(self.queue, self.spec.name)

    def headers(self, app: Celery) -> dict[str, Any]:
        """Ours, in the message."""
        made: dict[str, Any] = {PUBLISHED_AT: self.published_ms or _ms(time.time() + self.delay_seconds)}
        made[FIRST] = self.first_ms or made[PUBLISHED_AT]
        if self.spec.deadline_seconds is not None:
            made[DEADLINE] = _ms(self.since + self.spec.deadline_seconds)
        if self.failure is not None:
            made[FAILURE] = self.failure
        if self.trace is not None:
            made[tracing.HEADER] = self.trace
        return made | signature(app, self.spec.name, self.task_id, self.payload)

    def shown(self) -> dict[str, Any]:
        """Celery's headers of what monitors may see of the arguments."""
        return {"argsrepr": "()", "kwargsrepr": repr(masked(self.spec, self.payload))}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


@dataclass(frozen=True)
class Announcement:
    """An event, for whoever has bound a queue to the events exchange; its name is the routing key."""

    name: str
    body: dict[str, Any]


class Publisher(Protocol):
    """Puts messages on a bus. Safe to use from several threads."""

    def publish(self, messages: Sequence[Outgoing]) -> list[AfterliveError | None]:
        """In order; for each, None once the broker has it, or what became of it."""

    def announce(self, events: Sequence[Announcement]) -> list[AfterliveError | None]:
        """As `publish`, of events; that nobody listens is nothing to complain of."""

    def broadcast(self, word: dict[str, Any]) -> None:
        """To every worker that listens now. Raises BrokerUnavailable."""

    def close(self) -> None: ...


class InProcess:
    """On the in-process broker there is nothing to confirm."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def publish(self, messages: Sequence[Outgoing]) -> list[AfterliveError | None]:
        for message in messages:
            self._app.send_task(
                message.spec.name,
                kwargs=message.payload,
                task_id=message.task_id,
                **_in_process_address(message),
                routing_key=message.routing_key,
                countdown=message.delay_seconds or None,
                retries=message.retries,
                ignore_result=True,
                headers=message.headers(self._app),
                **message.shown(),
                **message.canvas,
            )
        return [None] * len(messages)

    def announce(self, events: Sequence[Announcement]) -> list[AfterliveError | None]:
        return [None] * len(events)  # in this process nobody listens

    def broadcast(self, word: dict[str, Any]) -> None:
        with self._app.producer_or_acquire() as producer:
            exchange = exchange_of(BROADCASTS, "memory://")
            producer.publish(word, exchange=exchange, declare=[exchange], serializer="json")

    def close(self) -> None:
        """Nothing is open."""


def _in_process_address(message: Outgoing) -> dict[str, Any]:
    if message.failure is None:
        return {"queue": message.queue}
    return {"exchange": FAILURES.name, "exchange_type": FAILURES.type}


_publishers: WeakKeyDictionary[Celery, Publisher] = WeakKeyDictionary()


def use_publisher(app: Celery, publisher: Publisher) -> None:
    """Have everything `app` sends through this module go this way."""
    _publishers[app] = publisher


def publisher_of(app: Celery) -> Publisher:
    """How `app` sends. Raises KeyError where it was not made by `make_app`."""
    # What tasks call `current_app` is a proxy.
    return _publishers[app._get_current_object() if isinstance(app, Proxy) else app]


def send(
    app: Celery,
    spec: TaskSpec,
    payload: dict[str, Any],
    *,
    countdown: float | None = None,
    patience_seconds: float = 0.0,
) -> str:
    """Put one message on the bus; its task id. Raises BrokerUnavailable or MessageRefused where the broker still does
    not take it after `patience_seconds`."""
    # Delays of quorum queues are whole seconds, from one on.
    message = Outgoing(spec, payload, delay_seconds=max(1, math.ceil(countdown)) if countdown else 0)
    send_message(app, message, patience_seconds)
    return message.task_id


def send_message(app: Celery, message: Outgoing, patience_seconds: float = 0.0) -> None:
    """As `send`."""
    give_up = time.monotonic() + patience_seconds
    pause = 0.1
    while (problem := publisher_of(app).publish([message])[0]) is not None:
        if time.monotonic() + pause > give_up:
            raise problem
        log.warning("%s %s waits %.1f s: %s", message.spec.name, message.task_id, pause, problem.detail)
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def masked(spec: TaskSpec, payload: dict[str, Any]) -> dict[str, Any]:
    """The payload as logs and monitors may show it: secrets hidden, jobs by their name alone."""
    shown: dict[str, Any] = {}
    for key, value in payload.items():
        if key in spec.secret:
            shown[key] = _HIDDEN
        elif isinstance(value, dict):
            shown[key] = {name: value[name] for name in ("replay_id", "part", "run") if name in value}
        else:
            shown[key] = value
    return shown


def without_secrets(spec: TaskSpec, payload: dict[str, Any]) -> dict[str, Any]:
    """The whole payload with its secrets hidden, for people to review and, where it has none, to send again."""
    return {key: _HIDDEN if key in spec.secret else value for key, value in payload.items()}


def scrub(spec: TaskSpec, payload: dict[str, Any], text: str) -> str:
    """`text` (an error's message, a traceback) without the values of the payload's secrets."""
    for key in spec.secret:
        if len(value := str(payload.get(key) or "")) > 2:
            text = text.replace(value, _HIDDEN)
    return text
