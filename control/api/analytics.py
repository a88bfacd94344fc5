"""What was watched and sold: players' events come in, figures of streams and daily reports go out."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi import Body as InBody
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from control.api.models import NO_NUL, Body, Identifier, Instant
from control.api.models import Day as WrittenDay
from control.api.openapi import described
from control.api.problems import RequestInvalid
from control.api.services import Services, services
from control.errors import Conflict, NotFound
from control.ledger import analytics, days, reports, streams
from control.ledger.analytics import View
from control.ledger.base import now
from control.ledger.figures import DayFigures, StreamFigures

router = APIRouter(tags=["analytics"])
AtHand = Annotated[Services, Depends(services)]
StreamId = Annotated[str, Path(description="The stream's id.", examples=["str_01jq"], max_length=64, pattern=NO_NUL)]
Day = Annotated[
    WrittenDay, Path(description="YYYY-MM-DD", ge=date(1970, 1, 1), le=date(9998, 12, 31), examples=["2026-11-24"])
]
Zone = Annotated[
    str | None,
    Query(max_length=64, description="Time zone whose day it is; AFTERLIVE_REPORT_ZONE without.", examples=["UTC"]),
]
Seller = Annotated[Identifier | None, Query(description="One seller's; all sellers' without.")]

_MOST: Final = 1000
# Clocks of players are not exact.
_SKEW: Final = timedelta(minutes=5)
_unknown = NotFound(noun="stream", key="str_01jq")
_no_report = NotFound(noun="report of", key="2026-11-24 in Asia/Taipei")


class ViewEventIn(Body):
    """Something a viewer did."""

    id: Identifier = Field(description="Your own, unique in the stream: an event that is sent again counts once.")
    viewer_id: Identifier
    kind: Literal["join", "heartbeat", "leave"]
    at: Instant = Field(description="By the player's clock", examples=["2026-11-24T12:00:30Z"])


class ViewEventBatch(Body):
    """Events of one stream, in any order."""

    events: list[ViewEventIn] = Field(min_length=1, max_length=_MOST)


class BatchAnswer(BaseModel):
    """What became of a batch."""

    accepted: int = Field(description="New ones")
    duplicates: int = Field(description="Known already")


class AnalyticsAnswer(BaseModel):
    """A stream's figures."""

    stream_id: str
    as_of: datetime | None = Field(description="When they were counted; null: not yet")
    up_to_date: bool = Field(description="Whether nothing came since")
    figures: StreamFigures | None


class ReportAnswer(BaseModel):
    """A daily report."""

    as_of: datetime = Field(description="When it was made")
    csv_url: str
    figures: DayFigures


class ReportRequested(BaseModel):
    """A report will be made."""

    task_id: str


@router.post(
    "/streams/{stream_id}/analytics/events",
    status_code=202,
    summary="Viewers came, watch, or went",
    responses=described(_unknown, RequestInvalid(), Conflict(reason="The stream str_01jq was cleaned up: …")),
)
def take(
    stream_id: StreamId,
    body: Annotated[
        ViewEventBatch,
        InBody(
            openapi_examples={
                "join": {
                    "summary": "A viewer came, and watches",
                    "value": {
                        "events": [
                            {"id": "ev-1", "viewer_id": "viewer-7", "kind": "join", "at": "2026-11-24T12:00:00Z"},
                            {"id": "ev-2", "viewer_id": "viewer-7", "kind": "heartbeat", "at": "2026-11-24T12:00:30Z"},
                        ]
                    },
                }
            }
        ),
    ],
    at_hand: AtHand,
) -> BatchAnswer:
    """At most 1,000 at a time; a player says `heartbeat` every 30 seconds. What comes late, or twice, changes nothing
    but what it says: figures are always counted from all events."""
    with at_hand.ledger.write() as session:
        begin = streams.get(session, stream_id).created_at
        _check(body, begin - _SKEW, now() + _SKEW)
        accepted = analytics.record_views(session, stream_id, [View(**dict(event)) for event in body.events])
    if accepted:
        at_hand.wake()
    return BatchAnswer(accepted=accepted, duplicates=len(body.events) - accepted)


@router.get("/streams/{stream_id}/analytics", summary="A stream's figures", responses=described(_unknown))
def show(stream_id: StreamId, at_hand: AtHand) -> AnalyticsAnswer:
    """While a stream is on they follow it by some ten seconds."""
    with at_hand.ledger.read() as session:
        streams.get(session, stream_id)
        row = analytics.get(session, stream_id)
    return AnalyticsAnswer(
        stream_id=stream_id,
        as_of=row.computed_at if row else None,
        up_to_date=row is None or row.counted >= row.changes,
        figures=StreamFigures.model_validate(row.data) if row and row.data else None,
    )


@router.get(
    "/reports/daily/{day}",
    summary="A day's report",
    responses=described(_no_report, RequestInvalid(), path="/reports/daily/2026-11-24"),
)
def report(day: Day, at_hand: AtHand, zone: Zone = None, seller_id: Seller = None) -> ReportAnswer:
    """Of one seller, or of all."""
    name = _zone(zone, at_hand)
    with at_hand.ledger.read() as session:
        found = reports.get(session, day.isoformat(), name, seller_id or reports.WHOLE)
    figures = DayFigures.model_validate(found.data)
    query = f"?zone={name}" + (f"&seller_id={seller_id}" if seller_id else "")
    return ReportAnswer(as_of=found.created_at, csv_url=f"/reports/daily/{day}/csv{query}", figures=figures)


@router.get(
    "/reports/daily/{day}/csv",
    summary="A day's sales as CSV",
    response_class=Response,
    responses={
        **described(_no_report, RequestInvalid(), path="/reports/daily/2026-11-24/csv"),
        200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "UTF-8 with a byte order mark"},
    },
)
def sheet(day: Day, at_hand: AtHand, zone: Zone = None, seller_id: Seller = None) -> Response:
    """One line a sale, and one a refund with its amount below zero."""
    with at_hand.ledger.read() as session:
        found = reports.get(session, day.isoformat(), _zone(zone, at_hand), seller_id or reports.WHOLE)
    name = found.csv_key.rpartition("/")[2]
    headers = {"Content-Disposition": f'attachment; filename="{day}-{name}"', "Cache-Control": "no-store"}
    content = at_hand.store.open(found.csv_key)
    return StreamingResponse(content, media_type="text/csv; charset=utf-8", headers=headers)


@router.post(
    "/reports/daily/{day}",
    status_code=202,
    summary="Make a day's reports, again",
    responses=described(RequestInvalid(), path="/reports/daily/2026-11-24"),
)
def make(
    day: Day,
    at_hand: AtHand,
    zone: Zone = None,
    resend: Annotated[bool, Query(description="Mail them also to who had them before.")] = False,
) -> ReportRequested:
    """Of all sellers, from what is known now. One that was mailed is not mailed again, unless that is asked for."""
    with at_hand.ledger.write() as session:
        task_id = reports.request(session, day, _zone(zone, at_hand), resend=resend)
    at_hand.wake()
    return ReportRequested(task_id=task_id)


def _zone(name: str | None, at_hand: Services) -> str:
    wanted = name or at_hand.settings.report.zone
    if days.zone_of(wanted) is None:
        raise _invalid(("query", "zone"), "There is no such time zone.")
    return wanted


def _check(body: ViewEventBatch, earliest: datetime, latest: datetime) -> None:
    for number, event in enumerate(body.events):
        if not earliest <= event.at <= latest:
            raise _invalid(("body", "events", number, "at"), "It lies before the stream, or in the future.")


def _invalid(place: tuple[str | int, ...], message: str) -> RequestValidationError:
    error: dict[str, Any] = {"loc": place, "msg": message, "type": "value_error"}
    return RequestValidationError([error])
