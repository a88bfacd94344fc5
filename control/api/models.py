"""What crosses the HTTP API, with examples."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from control.ledger.views import StreamView

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def _written_out(value: Any) -> Any:
    if not isinstance(value, str) or not _DATE.match(value):
        raise ValueError("It should begin with YYYY-MM-DD.")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("It lies before the year 1 or after 9999.") from None


NO_NUL = r"^[^\x00]*$"
"""PostgreSQL's text has none."""
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300, pattern=NO_NUL)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$")]
RecordingPath = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=NO_NUL)]
Instant = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
"""A moment in ISO 8601, with its offset. Not a number of seconds, which the framework would take too."""
Day = Annotated[date, BeforeValidator(_written_out)]
"""YYYY-MM-DD, and no number either."""
RECORDING = (
    "The recording: a plain path inside the folders recordings may be read from, or `store:KEY`, an object of the "
    "object store."
)


class Body(BaseModel):
    """Base of request bodies: a field nobody declared is an error."""

    model_config = ConfigDict(extra="forbid")


class StreamCreate(Body):
    """A stream begins."""

    title: Title = Field(examples=["Autumn ceramics, live from Yingge"])
    id: Identifier | None = Field(None, description="Your own id; one is made where it is missing.")
    seller_id: Identifier | None = Field(None, examples=["seller-42"])
    recording: RecordingPath | None = Field(None, description=RECORDING, examples=["yingge-2026-10-01.mp4"])


class StreamEnd(Body):
    """A stream ended, its recording lies ready."""

    recording: RecordingPath | None = Field(
        None,
        description=f"{RECORDING} May be left out where it was given when the stream was created.",
        examples=["yingge-2026-10-01.mp4"],
    )


class StreamAnswer(StreamView):
    """A stream, its replay and the links to watch it (null until there is a replay)."""

    player_url: str | None = Field(None, description="The player page; whoever has the link may watch.")
    playback_url: str | None = Field(None, description="The HLS master playlist, for players of your own.")
    links_expire_at: datetime | None = None


class StreamPage(BaseModel):
    """One page of streams, newest first."""

    items: list[StreamAnswer]
    next: str | None = Field(None, description="Give it as `after` to get the next page; null on the last.")
