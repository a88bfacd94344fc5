"""One encoder, several ways to run it: which is taken, and what follows where one fails.

| failure | what follows |
|---|---|
| busy | another device, or a wait; then `encoder-busy`, which the bus tries again without counting it |
| incapable | the next tier, at once next time too |
| unavailable | another device; the breaker counts it |
| input | where the device decoded, the CPU decodes; else it is the recording's |
| fault | another device or the next tier; the breaker counts it |

The encoder itself is pinned for the whole replay, as another gives another init segment: where no way is left it is
`encoder-unavailable`, and the rung is planned anew.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from control.bus.messages import ChunkJob
from control.bus.work import Work
from control.errors import AfterliveError, EncoderBusy, EncoderFailed, EncoderUnavailable, OutputRejected
from control.settings import MediaSettings
from media_worker.encoder_metrics import FALLBACKS
from media_worker.encoders import breaker, sessions
from media_worker.encoders.devices import gpus
from media_worker.encoders.failures import Failure, cause_of, failure_of, is_certain
from media_worker.encoders.probing import known
from media_worker.encoders.table import Encoder, encoder
from media_worker.encoders.tiers import TIERS, Kind, Way

log = logging.getLogger("afterlive.encoders")
WAIT_SECONDS: Final = 30.0
"""How long a chunk waits, message in hand, for a session; a node full of waiting ones takes no others meanwhile."""
_POLL_SECONDS: Final = 0.25
_BUSY_SECONDS: Final = 2.0
"""How long a device that had no session is not asked again: others than us use it."""
_REMEMBER_SECONDS: Final = 600.0
_incapable: dict[tuple[object, ...], float] = {}
T = TypeVar("T")
Attempt = Callable[[Way], T]


@dataclass
class _Failed:
    way: Way
    failure: Failure
    error: AfterliveError


@dataclass
class Attempts(Generic[T]):
    """The ways for one command, until one has made it."""

    job: ChunkJob
    kind: Kind
    settings: MediaSettings
    work: Work
    attempt: Attempt[T]
    """Makes the job's rungs one way, checked. Raises EncoderFailed and OutputRejected; what it made is gone then."""
    wait_seconds: float = field(default_factory=lambda: WAIT_SECONDS)
    fallbacks: list[str] = field(default_factory=list)
    """What was not had as wanted, a line each."""
    _ways: list[Way] = field(init=False)
    _failed: list[_Failed] = field(default_factory=list)
    _busy: dict[str, float] = field(default_factory=dict)
    _why_not: list[str] = field(default_factory=list)
    _full_since: float | None = None

    @property
    def encoder(self) -> Encoder:
        return next(row for row in map(encoder, (rung.encoder for rung in self.job.rungs)) if row.kind == self.kind)

    def make(self) -> T:
        """Raises EncoderBusy, EncoderUnavailable, and what the last attempt raised."""
        self._ways = self._possible()
        while self._ways:
            if (made := self._round()) is not None:
                return made
        raise self._given_up()

    def _round(self) -> T | None:
        """One attempt by the best tier that is left, on the device with most free sessions; a wait where none is free.
        Raises EncoderBusy where none was for long."""
        tier = self._ways[0].tier
        for way in self._by_free_sessions([way for way in self._ways if way.tier is tier]):
            with sessions.take(self.settings, way.device.name, self._wanted) as had:
                if not had:
                    continue
                if breaker.allow(self.settings, way.device.name):
                    return self._try(way)
                self._leave(way)
                return None
        self._wait()
        time.sleep(_POLL_SECONDS)
        return None

    def _wait(self) -> None:
        self.work.check()
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
        if now - self._full_since > self.wait_seconds:
            raise EncoderBusy(encoder=self.encoder.name, reason=f"waited {self.wait_seconds:.0f} s for one")

    @property
    def _wanted(self) -> int:
        return sum(encoder(rung.encoder).kind == self.kind for rung in self.job.rungs)

    def _possible(self) -> list[Way]:
        """Tier by tier, best first."""
        video, devices = self.job.video, [device for device in gpus(self.settings) if device.kind == self.kind]
        if not devices:
            self._why_not.append(f"there is no {self.kind} device")
        ways = []
        for tier in TIERS[self.kind]:
            for device in devices:
                way = Way(tier, device)
                if not tier.takes(video) or time.monotonic() < _incapable.get(self._case(way), 0.0):
                    continue
                probed = known(self.settings, way, self.encoder)
                if probed is not None and video.bit_depth not in probed.bit_depths:
                    self._why_not.append(f"{way}: {probed.reason or f'it takes no {video.bit_depth} bits'}")
                elif breaker.is_open(self.settings, device.name):
                    self._why_not.append(f"{device.name} is left alone after faults")
                else:
                    ways.append(way)
        return ways

    def _by_free_sessions(self, ways: list[Way]) -> list[Way]:
        """Those not known to be busy, the emptiest device first."""
        now = time.monotonic()
        ready = [way for way in ways if self._busy.get(way.device.name, 0.0) <= now]
        return sorted(ready, key=lambda way: -sessions.free(self.settings, way.device.name))

    def _try(self, way: Way) -> T | None:
        device = way.device.name
        try:
            made = self.attempt(way)
        except (EncoderFailed, OutputRejected) as error:
            self._react(_Failed(way, failure_of(error), error))
            return None
        except BaseException:
            # Cancelled, or the store away: it says nothing of the device.
            breaker.put_back(self.settings, device)
            raise
        breaker.succeeded(self.settings, device)
        for suspect in self._failed:
            # What this device made well, the other one did not.
            doubtful = suspect.failure is Failure.FAULT and not is_certain(suspect.error)
            if doubtful and suspect.way.device != way.device:
                breaker.failed(self.settings, suspect.way.device.name, cause_of(suspect.error))
        return made

    def _react(self, failed: _Failed) -> None:
        way, error = failed.way, failed.error
        device = way.device.name
        if failed.failure is not Failure.BUSY:
            self._full_since = None
        self._failed.append(failed)
        match failed.failure:
            case Failure.BUSY:
                breaker.put_back(self.settings, device)
                self._busy[device] = time.monotonic() + _BUSY_SECONDS
                self._wait()
            case Failure.INCAPABLE:
                breaker.put_back(self.settings, device)
                _remember(self._case(way))
                self._ways.remove(way)
            case Failure.UNAVAILABLE:
                breaker.failed(self.settings, device, cause_of(error))
                self._ways = [other for other in self._ways if other.device != way.device]
            case Failure.INPUT:
                breaker.put_back(self.settings, device)
                if not way.tier.decodes:
                    raise error
                self._ways = [other for other in self._ways if not other.tier.decodes]
            case Failure.FAULT:
                opened = is_certain(error) and breaker.failed(self.settings, device, cause_of(error))
                self._ways = [
                    other for other in self._ways if other != way and not (opened and other.device == way.device)
                ]
        self._tell(way, failed.failure, cause_of(error))

    def _leave(self, way: Way) -> None:
        """Another process opened the breaker meanwhile, or has the trial."""
        self._why_not.append(f"{way.device.name} is left alone after faults")
        self._ways = [other for other in self._ways if other.device != way.device]

    def _tell(self, way: Way, failure: Failure, detail: str) -> None:
        """Counted, logged, and in the chunk's result: a silent fallback hides a dead GPU."""
        then = "wait" if failure is Failure.BUSY else self._ways[0].tier.name if self._ways else "none"
        FALLBACKS.labels(self.encoder.name, then, failure.value).inc()
        line = f"{self.encoder.name} ({way}) {failure.value}: {detail}"
        self.fallbacks.append(line)
        log.warning("%s: %s; next: %s", self.work.key, line, then)

    def _case(self, way: Way) -> tuple[object, ...]:
        """What a way was, or was not, able to do: the same recordings into the same rungs."""
        video, rungs = self.job.video, self.job.rungs
        return (
            str(way), video.codec, video.pixel_format, video.coded_width, video.coded_height,
            *((rung.encoder, rung.width, rung.height, rung.profile) for rung in rungs),
        )  # fmt: skip

    def _given_up(self) -> AfterliveError:
        faults = [each for each in self._failed if each.failure is Failure.FAULT]
        for each in faults:
            # Output of a wrong length, whatever made it: the chunk is tried once more from the recording's start.
            if not is_certain(each.error):
                return each.error
        for each in faults:
            # Once more, as the bus has it, perhaps elsewhere; until the breaker has seen enough.
            if not breaker.is_open(self.settings, each.way.device.name):
                return each.error
        why = [*self._why_not, *(f"{each.way}: {cause_of(each.error)}" for each in self._failed)]
        FALLBACKS.labels(self.encoder.name, "replan", "unavailable").inc()
        reason = "; ".join(dict.fromkeys(why)) or "no way of it takes this recording"
        return EncoderUnavailable(encoder=self.encoder.name, node=platform.node(), reason=reason)


def _remember(new: tuple[object, ...]) -> None:
    now = time.monotonic()
    for old in [case for case, until in _incapable.items() if until < now]:
        del _incapable[old]
    _incapable[new] = now + _REMEMBER_SECONDS
