"""Pure: from the events of viewers to when each watched. Times are whole microseconds since 1970."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """Exact, where a float would not be."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)


class Seen(NamedTuple):
    """Something a viewer did. In order they are by viewer, then time; and of the same time `leave` comes first: who
    left and came back in one instant is there."""

    viewer_id: str
    at: int
    kind: str


class Session(NamedTuple):
    """Somebody watched from `start` until just before `end`."""

    viewer_id: str
    start: int
    end: int


def sessions(events: Iterable[Seen], grace: int) -> Iterator[Session]:
    """When each watched: from the first sign to `leave`, or for `grace` after the last sign. Those of one viewer do not
    overlap; a viewer on two devices is one. `events` in their order."""
    viewer: str | None = None
    start: int | None = None
    last = 0
    for event in events:
        if event.viewer_id != viewer:
            if viewer is not None and start is not None:
                yield Session(viewer, start, last + grace)
            viewer, start = event.viewer_id, None
        if start is not None and event.at - last > grace:
            yield Session(event.viewer_id, start, last + grace)
            start = None
        if event.kind == "leave":
            if start is not None:
                yield Session(event.viewer_id, start, event.at)
            start = None
            continue
        start = event.at if start is None else start
        last = event.at
    if viewer is not None and start is not None:
        yield Session(viewer, start, last + grace)


@dataclass
class Audience:
    """Who watched between `begin` and `end` (None: open), counted. Sixteen bytes a session, and no more."""

    begin: int
    end: int | None = None
    watched: int = 0
    """Of all viewers together, microseconds."""
    _starts: array[int] = field(default_factory=lambda: array("q"))
    _ends: array[int] = field(default_factory=lambda: array("q"))

    def add(self, session: Session) -> None:
        """Of it, what lies inside."""
        start = max(session.start, self.begin)
        end = session.end if self.end is None else min(session.end, self.end)
        if start < end:
            self.watched += end - start
            self._starts.append(start)
            self._ends.append(end)

    def peak(self) -> tuple[int, int] | None:
        """How many at most watched at the same time, and since when; None where nobody did."""
        best = max(self._levels(), key=lambda level: (level[1], -level[0]), default=None)
        return (best[1], best[0]) if best else None

    def minutes(self) -> dict[int, int]:
        """The most that watched at the same time, by minute since `begin`; without minutes in which nobody did."""
        found: dict[int, int] = {}
        before, watching = 0, 0
        for at, level in self._levels():
            if watching:  # as many as there were, in all the minutes up to here
                for minute in range(before, (at - self.begin - 1) // MINUTE + 1):
                    found[minute] = max(found.get(minute, 0), watching)
            before, watching = (at - self.begin) // MINUTE, level
        return found

    def _levels(self) -> Iterator[tuple[int, int]]:
        """How many watch, each time that changes. Who goes when another comes is not there with them."""
        starts, ends = sorted(self._starts), sorted(self._ends)
        came, gone = 0, 0
        while gone < len(ends):
            at = min(starts[came], ends[gone]) if came < len(starts) else ends[gone]
            while gone < len(ends) and ends[gone] == at:
                gone += 1
            while came < len(starts) and starts[came] == at:
                came += 1
            yield at, came - gone
