"""Who may do what on the broker: a user a tier, each with the least it needs.

RabbitMQ checks three patterns of names (configure, write, read), and on topic exchanges a pattern of routing keys
(https://www.rabbitmq.com/docs/access-control). A routing key names queue and task, and workers refuse a message whose
task is not the one of its routing key (`control.bus.consumer`): so a media node can answer, try its own tasks again,
and nothing else.

Patterns of routing keys hold for who publishes, not for what exchanges and queues pass on. Whoever could make an
exchange, or a queue with a dead-letter exchange, and put messages into it, could bind it to where it may only write,
and send whatever it likes. So a media node makes nothing but queues the broker names (nobody may make an exchange of
such a name), reads from no exchange that it writes to, and hears no remote control.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from control.bus import names
from control.bus.names import CATALOGUE, TaskSpec
from control.bus.topology import BROADCASTS, DELAY, DELIVERY, DIRECT, EVENTS, FAILURES, QUEUE_SPECS, TASKS

_NOTHING: Final = "^$"
_OWN_QUEUE: Final = r"amq\.gen-.+"  # the broker named it; whoever declared it has it alone
EVENTS_EXCHANGE: Final = "amq.topic"
"""What Celery tells monitors by. It is always there, so no worker needs the right to declare it."""
_CONTROL: Final = r"afterlive\.pidbox"
_MONITOR_QUEUE: Final = r"celeryev\..+"


@dataclass(frozen=True)
class Rights:
    """Of one user: patterns as `rabbitmqctl set_permissions` takes them."""

    configure: str = _NOTHING
    write: str = _NOTHING
    read: str = _NOTHING
    topics: dict[str, str] = field(default_factory=dict)
    """Exchange → pattern of the routing keys that may be sent there; all, where it is not named."""


def _any(*patterns: str) -> str:
    return f"^({'|'.join(patterns)})$"


def _keys(*specs: TaskSpec) -> str:
    return "|".join(re.escape(key) for spec in specs for key in spec.routing_keys)


def _worker(
    reads: tuple[str, ...],
    writes: tuple[str, ...] = (),
    own: tuple[str, ...] = (),
    topics: dict[str, str] | None = None,
) -> Rights:
    sends = map(re.escape, (TASKS.name, DELAY, FAILURES.name, EVENTS_EXCHANGE, *writes))
    listens = map(re.escape, (BROADCASTS.name, *reads))
    # To bind a queue is to write to it.
    return Rights(
        _any(_OWN_QUEUE, *own), _any(_OWN_QUEUE, *own, *sends), _any(_OWN_QUEUE, *own, *listens), topics or {}
    )


def _commerce(tier: str, reads: tuple[str, ...], writes: tuple[str, ...] = ()) -> Rights:
    # Its relay sends what happened. Celery's remote control has a queue for each worker, and two exchanges, which it
    # declares each time.
    return _worker(reads, (EVENTS.name, *writes), own=(rf"({tier}@.+\.|reply\.)?{_CONTROL}",))


def _topology() -> Rights:
    # All that is ours, and nothing of others: a virtual host may be shared.
    queue = "|".join(re.escape(spec.name) for spec in QUEUE_SPECS)
    own = _any(r"afterlive\..+", r"celery_delayed_\d+", DELIVERY, rf"({queue})(\.aside)?", r".+\.from\..+")
    return Rights(own, own, own)


_MEDIA: Final = tuple(spec for spec in CATALOGUE.values() if spec.queue == names.LOW)
ANSWERS: Final = (names.PART_DONE, names.PART_FAILED, names.PART_PROGRESS, names.NODE_REPORT)
"""What the media tier sends to another."""
_PUBLISHER: Final = Rights(write=_any(*map(re.escape, (TASKS.name, DIRECT.name, EVENTS.name))))

RIGHTS: Final[dict[str, Rights]] = {
    "topology": _topology(),
    "api": _PUBLISHER,
    "beat": _PUBLISHER,
    "fast": _commerce("fast", (names.HIGH,)),
    "notify": _commerce("notify", (names.DEFAULT, names.FAILED), (BROADCASTS.name,)),
    "media": _worker(
        (names.LOW, *names.GPU_QUEUES.values()),
        topics={
            TASKS.name: f"^({_keys(*ANSWERS, *_MEDIA)})$",
            DELAY: rf"^([01]\.){{28}}({_keys(*_MEDIA)})$",
            FAILURES.name: f"^({_keys(*_MEDIA)})$",
        },
    ),
    # Flower: remote control of the tiers that hear it, and events. (The queues' depths are the management plug-in's.)
    "monitor": Rights(
        configure=_any(rf"(.+\.)?{_CONTROL}", _MONITOR_QUEUE),
        write=_any(rf"(.+\.)?{_CONTROL}", _MONITOR_QUEUE),
        read=_any(rf"(.+\.)?reply\.{_CONTROL}", _MONITOR_QUEUE, re.escape(EVENTS_EXCHANGE)),
    ),
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
