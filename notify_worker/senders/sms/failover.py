"""Several providers as one: the next where one is away, and one that was away lately comes last."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Counter

from control.errors import AfterliveError, ProviderRefused, SenderRefused, SenderUnavailable
from notify_worker.senders.sms.base import SmsSender

log = logging.getLogger("afterlive.sms")
SENDS = Counter("afterlive_sms_sends_total", "Text messages given to a provider", ["provider", "outcome"])
_COOL_DOWN_SECONDS: Final = 15.0
# Of all providers together, before the next one is begun with: a try must leave time for the other tries.
_PATIENCE_SECONDS: Final = 10.0


@dataclass
class Breaker:
    """Whether a provider was away lately. Not safe by itself: its owner locks."""

    clock: Callable[[], float]
    until: float = field(default=float("-inf"))
    failed: bool = False

    def comes_last(self) -> bool:
        return self.failed and self.clock() < self.until

    def opened(self) -> None:
        """It was away, or whoever tries it now is to find out for all others whether it still is."""
        self.failed = True
        self.until = self.clock() + _COOL_DOWN_SECONDS

    def closed(self) -> None:
        self.failed = False


class FailoverSender:
    """In their order, but for those that were away within the last quarter of a minute: those come last, so that a
    dead one does not cost each message its time-out. None is ever left out: the last hope is tried as well.

    A message that a provider took without saying so in time goes to the next one too: twice is better than never.
    """

    name = "failover"

    def __init__(self, providers: Sequence[SmsSender], clock: Callable[[], float] = time.monotonic) -> None:
        self._providers = [(provider, Breaker(clock)) for provider in providers]
        self._clock = clock
        self._lock = threading.Lock()

    def send(self, to: str, text: str, key: str) -> str:
        return self.send_by(to, text, key)[1]

    def send_by(self, to: str, text: str, key: str) -> tuple[str, str]:
        """As `send`, with the name of the provider that took it."""
        give_up = self._clock() + _PATIENCE_SECONDS
        problems: list[AfterliveError] = []
        for provider, breaker in self._order():
            if problems and self._clock() > give_up:
                break
            try:
                found = provider.send(to, text, key)
            except (SenderUnavailable, ProviderRefused) as error:
                SENDS.labels(provider.name, error.code).inc()
                problems.append(error)
                if isinstance(error, SenderUnavailable):
                    self._note(breaker.opened)
                    log.warning("%s is away: %s", provider.name, error.detail)
                continue
            except SenderRefused as error:
                SENDS.labels(provider.name, error.code).inc()
                self._note(breaker.closed)
                raise
            except Exception as error:  # noqa: BLE001  (what nobody foresaw may hold the message: only its kind is told)
                SENDS.labels(provider.name, "broken").inc()
                reason = f"{provider.name}: {type(error).__name__}"
                problems.append(ProviderRefused(channel="text message", reason=reason))
                log.error("%s is broken: %s", provider.name, type(error).__name__)  # noqa: TRY400
                continue
            SENDS.labels(provider.name, "sent").inc()
            self._note(breaker.closed)
            return provider.name, found
        # One that is only away may have it the next time.
        raise next((problem for problem in problems if isinstance(problem, SenderUnavailable)), problems[0])

    def _order(self) -> list[tuple[SmsSender, Breaker]]:
        with self._lock:
            order = sorted(self._providers, key=lambda one: one[1].comes_last())
            if (first := order[0][1]).failed:
                # Its time is over: this message finds out whether it is back; others do not wait for that.
                first.opened()
            return order

    def _note(self, change: Callable[[], None]) -> None:
        with self._lock:
            change()
