"""Who may do what on the broker: a user a tier, each with the least it needs.

RabbitMQ checks three patterns of names (configure, write, read), and on topic exchanges a pattern of routing keys
(https://www.rabbitmq.com/docs/access-control). A routing key names queue and task, and the base task refuses a message
whose task is not the one of its routing key: so a media node can answer, try its own tasks again, and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from control.bus import names
from control.bus.names import CATALOGUE, TaskSpec
from control.bus.topology import BROADCASTS, DELAY, DIRECT, EVENTS, FAILURES, TASKS

_NOTHING: Final = "^$"
_CELERY_EVENTS: Final = r"celeryev(\..+)?"


@dataclass(frozen=True)
class Rights:
    """Of one user: patterns as `rabbitmqctl set_permissions` takes them."""

    configure: str = _NOTHING
    write: str = _NOTHING
    read: str = _NOTHING
    topics: dict[str, str] = field(default_factory=dict)
    """Exchange → pattern of the routing keys that may be sent there; all, where it is not named."""


def control_exchange(tier: str) -> str:
    """What Celery's remote control of a tier's workers goes by: the media tier has its own, or a node of it could
    tell the workers of commerce to stop."""
    return "afterlive.media" if tier == "media" else "afterlive"


def _any(*patterns: str) -> str:
    return f"^({'|'.join(patterns)})$"


def _keys(*specs: TaskSpec) -> str:
    return "|".join(re.escape(spec.routing_key) for spec in specs)


def _worker(tier: str, reads: tuple[str, ...], writes: tuple[str, ...] = ()) -> Rights:
    # Its own: a queue for broadcasts and pings, Celery's for remote control, and the exchanges those want declared.
    remote = re.escape(control_exchange(tier))
    own = (rf"afterlive\.worker\.{tier}\..+", rf"(.+\.)?{remote}\.pidbox", _CELERY_EVENTS)
    sends = map(re.escape, (TASKS.name, DELAY, FAILURES.name, DIRECT.name, *writes))
    listens = map(re.escape, (BROADCASTS.name, DIRECT.name, *reads))
    return Rights(configure=_any(*own), write=_any(*own, *sends), read=_any(*own, *listens))


_MEDIA: Final = tuple(spec for spec in CATALOGUE.values() if spec.queue == names.LOW)
_CALLBACKS: Final = (names.PART_DONE, names.PART_FAILED, names.PART_PROGRESS)
_PUBLISHER: Final = Rights(write=_any(re.escape(TASKS.name), re.escape(EVENTS.name)))

RIGHTS: Final[dict[str, Rights]] = {
    "topology": Rights(".*", ".*", ".*"),
    "api": _PUBLISHER,
    "beat": _PUBLISHER,
    "fast": _worker("fast", (names.HIGH,)),
    "notify": _worker("notify", (names.DEFAULT, names.FAILED), (BROADCASTS.name, EVENTS.name)),
    "media": Rights(
        **{key: getattr(_worker("media", (names.LOW,)), key) for key in ("configure", "write", "read")},
        topics={
            TASKS.name: f"^({_keys(*_CALLBACKS, *_MEDIA)})$",
            DELAY: rf"^([01]\.){{28}}({_keys(*_MEDIA)})$",
            FAILURES.name: f"^({_keys(*_MEDIA)})$",
        },
    ),
    # Flower: remote control and events, and a look at the queues' depths by way of the management plug-in.
    "monitor": Rights(*(_any(r"(.+\.)?afterlive\.pidbox", _CELERY_EVENTS),) * 3),
}


def commands(vhost: str = "/") -> list[list[str]]:
    """The arguments of `rabbitmqctl` that give each user (`afterlive-TIER`, which must exist) its rights."""
    made = []
    for tier, rights in RIGHTS.items():
        user = f"afterlive-{tier}"
        made.append(["set_permissions", "-p", vhost, user, rights.configure, rights.write, rights.read])
        for exchange, pattern in rights.topics.items():
            made.append(["set_topic_permissions", "-p", vhost, user, exchange, pattern, ".*"])
    return made
