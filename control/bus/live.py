"""What runs right now: started, waiting for another try, how far. Kept in Redis for a day, as a courtesy.

The ledger knows how a task ended; this only says what it does meanwhile. With Redis away nothing waits for it and
nothing is lost: tasks are then PENDING until they are done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from control.bus import tls
from control.bus.context import Delivery
from control.settings import BusSettings

log = logging.getLogger("afterlive.live")
_KEPT_SECONDS: Final = 24 * 3600
_TIMEOUT_SECONDS: Final = 0.25
_AWAY_SECONDS: Final = 5.0  # after a failure it is left alone for so long
_REMEMBERED: Final = 10_000
_GATHER_SECONDS: Final = 0.1


class Board(Protocol):
    """Facts of tasks, by id."""

    def put(self, task_id: str, facts: dict[str, str]) -> None: ...

    def get(self, task_id: str) -> dict[str, str]: ...

    def flush(self) -> None:
        """Have all processes see what was put until now."""


class InProcess:
    """Of this process alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts: OrderedDict[str, dict[str, str]] = OrderedDict()

    def put(self, task_id: str, facts: dict[str, str]) -> None:
        with self._lock:
            self._facts[task_id] = self._facts.pop(task_id, {}) | facts
            if len(self._facts) > _REMEMBERED:
                self._facts.popitem(last=False)

    def get(self, task_id: str) -> dict[str, str]:
        with self._lock:
            return dict(self._facts.get(task_id, {}))

    def flush(self) -> None:
        """It is seen at once."""


class OnRedis:
    """Of all processes. Never raises, and nobody waits for it: a thread writes what was put, together and a little
    later, so that a task's start waits for no server, and what is over by then is written once."""

    def __init__(self, url: str, **options: Any) -> None:
        from redis import Redis, RedisError  # embedded mode should not wait for it

        self._errors: tuple[type[Exception], ...] = (RedisError, OSError)
        timeouts = {"socket_timeout": _TIMEOUT_SECONDS, "socket_connect_timeout": _TIMEOUT_SECONDS}
        self._redis = Redis.from_url(url, decode_responses=True, **timeouts, **options)
        self._away_until = 0.0
        self._lock = threading.Lock()
        self._put: dict[str, dict[str, str]] = {}
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, task_id: str, facts: dict[str, str]) -> None:
        with self._lock:
            self._put[task_id] = self._put.get(task_id, {}) | facts
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="live", daemon=True)
                self._thread.start()
        self._some.set()

    def get(self, task_id: str) -> dict[str, str]:
        found: dict[str, str] = {}
        self._try(lambda: found.update(cast("dict[str, str]", self._redis.hgetall(_key(task_id)))))
        with self._lock:
            return found | self._put.get(task_id, {})

    def flush(self) -> None:
        with self._lock:
            waiting, self._put = self._put, {}

        def write() -> None:
            with self._redis.pipeline(transaction=False) as pipe:
                for task_id, facts in waiting.items():
                    pipe.hset(_key(task_id), mapping=cast("dict[Any, Any]", facts))
                    pipe.expire(_key(task_id), _KEPT_SECONDS)
                pipe.execute()

        if waiting:
            self._try(write)

    def _loop(self) -> None:
        while True:
            self._some.wait()
            time.sleep(_GATHER_SECONDS)
            self._some.clear()
            self.flush()

    def _try(self, ask: Callable[[], None]) -> None:
        if time.monotonic() < self._away_until:
            return
        try:
            ask()
        except self._errors as error:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            log.warning("what runs is not shown for %.0f s: %s", _AWAY_SECONDS, error)


def _key(task_id: str) -> str:
    return f"afterlive:task:{task_id}"


_board: Board = InProcess()


def use(settings: BusSettings) -> Board:
    """Keep it where `settings` have the result backend."""
    global _board
    url = settings.result_backend.get_secret_value()
    on_redis = url.startswith(("redis:", "rediss:"))
    _board = OnRedis(url, **tls.redis_options(settings)) if on_redis else InProcess()
    return _board


def started(delivery: Delivery) -> None:
    _board.put(
        delivery.task_id,
        {
            "state": "STARTED",
            "task": delivery.task,
            "attempt": str(delivery.attempt),
            "started_at": str(time.time()),
            "progress": "0",  # of this try, whatever the one before came to
        }
        | ({"key": delivery.key} if delivery.key else {}),
    )


def waits(task_id: str) -> None:
    """It failed, and will be tried again."""
    _board.put(task_id, {"state": "RETRY"})


def progress(task_id: str, share: float) -> None:
    """From 0 to 1."""
    _board.put(task_id, {"progress": f"{min(share, 1.0):.4f}"})


def done(delivery: Delivery) -> None:
    _board.put(delivery.task_id, {"state": "SUCCESS", "progress": "1.0"})


def flush() -> None:
    """Have all processes see what this one told until now; by itself that takes a tenth of a second."""
    _board.flush()


def look(task_id: str) -> dict[str, str]:
    """What is known of it; nothing where Redis is away, or it is not known."""
    return _board.get(task_id)
