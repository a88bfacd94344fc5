"""Streams: they begin, they end, and from then on there is a replay to follow, to cancel or to try again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from control.api.models import NO_NUL, StreamAnswer, StreamCreate, StreamEnd, StreamPage
from control.api.openapi import described
from control.api.paging import After, Limit, link_next
from control.api.problems import RequestInvalid
from control.api.services import Services, services
from control.errors import AfterliveError, Conflict, InputError, NotFound, RecordingOutsideRoots, RecordingRefused
from control.ledger import streams, views
from control.ledger.views import StreamView
from control.storage.sources import accept_source

router = APIRouter(prefix="/streams", tags=["streams"])
AtHand = Annotated[Services, Depends(services)]
StreamId = Annotated[str, Path(description="The stream's id.", examples=["str_01jq"], max_length=64, pattern=NO_NUL)]

_unknown = NotFound(noun="stream", key="str_01jq")
_invalid = RequestInvalid()
_recording_errors: tuple[InputError, ...] = (
    RecordingRefused(source="concat:a|b", reason="it is a URL or an ffmpeg protocol, not a plain path"),
    RecordingOutsideRoots(source="/etc/passwd"),
)


@router.post(
    "",
    status_code=201,
    summary="A stream begins",
    responses=described(_invalid, *_recording_errors, Conflict(reason="There is a stream str_01jq already.")),
)
def create(
    body: Annotated[
        StreamCreate,
        Body(
            openapi_examples={
                "live": {"summary": "A live stream", "value": {"title": "Autumn ceramics, live from Yingge"}},
                "known": {
                    "summary": "Its recording is known already",
                    "value": {"title": "Autumn ceramics", "seller_id": "seller-42", "recording": "yingge.mp4"},
                },
            }
        ),
    ],
    request: Request,
    response: Response,
    at_hand: AtHand,
) -> StreamAnswer:
    """Registers a stream. Its replay is made when it ends."""
    recording = _recording(at_hand, body.recording)
    with at_hand.ledger.write() as session:
        stream = streams.create(
            session, title=body.title, seller_id=body.seller_id, stream_id=body.id, recording=recording
        )
        session.flush()
        answer = _answer(session, stream.id, request, at_hand)
    response.headers["Location"] = f"/streams/{answer.id}"
    return answer


@router.get("", summary="Streams, newest first", responses=described(_unknown, _invalid, path="/streams"))
def index(
    request: Request,
    response: Response,
    at_hand: AtHand,
    limit: Limit = 20,
    after: After = None,
    state: Annotated[str | None, Query(max_length=32, pattern=NO_NUL)] = None,
) -> StreamPage:
    """Pages by key, not by number: streams that come in between shift nothing."""
    with at_hand.ledger.read() as session:
        found = streams.page(session, limit=limit + 1, after=after, state=state)
        items = [_answer(session, stream.id, request, at_hand) for stream in found[:limit]]
    following = link_next(request, response, items[-1].id if len(found) > limit else None)
    return StreamPage(items=items, next=following)


@router.get("/{stream_id}", summary="A stream and its replay", responses=described(_unknown))
def show(stream_id: StreamId, request: Request, at_hand: AtHand) -> StreamAnswer:
    """Everything there is to know of it now; `/events` tells when that changes."""
    with at_hand.ledger.read() as session:
        return _answer(session, stream_id, request, at_hand)


@router.post(
    "/{stream_id}/end",
    status_code=202,
    summary="A stream ended",
    responses=described(
        _unknown, _invalid, *_recording_errors, Conflict(reason="The stream str_01jq has no recording.")
    ),
)
async def end(
    stream_id: StreamId,
    request: Request,
    response: Response,
    at_hand: AtHand,
    body: Annotated[
        StreamEnd | None,
        Body(openapi_examples={"recording": {"value": {"recording": "yingge-2026-10-01.mp4"}}}),
    ] = None,
) -> StreamAnswer:
    """Answers at once; the replay is made from now on. Ending a stream twice gives the same replay."""
    named = body.recording if body else None
    # Looking at a path may take its time, where it is on a disk far away.
    recording = await run_in_threadpool(_recording, at_hand, named) if named else None
    view = await asyncio.wrap_future(at_hand.endings.submit(streams.Ending(stream_id, recording)))
    return _accepted(with_links(view, request, at_hand), response, at_hand)


@router.post(
    "/{stream_id}/cancel",
    status_code=202,
    summary="Stop making the replay",
    responses=described(_unknown, Conflict(reason="The replay of str_01jq is completed.")),
)
def cancel(stream_id: StreamId, request: Request, response: Response, at_hand: AtHand) -> StreamAnswer:
    """Work in progress stops within a second. Cancelling twice is the same as once."""
    with at_hand.ledger.write() as session:
        streams.cancel(session, stream_id)
        session.flush()
        answer = _answer(session, stream_id, request, at_hand)
    return _accepted(answer, response, at_hand)


@router.post(
    "/{stream_id}/retry",
    status_code=202,
    summary="Make a failed or cancelled replay after all",
    responses=described(_unknown, Conflict(reason="The replay of str_01jq is completed.")),
)
def retry(stream_id: StreamId, request: Request, response: Response, at_hand: AtHand) -> StreamAnswer:
    """Finished chunks are kept; only what is missing is made."""
    with at_hand.ledger.write() as session:
        streams.retry(session, stream_id)
        session.flush()
        answer = _answer(session, stream_id, request, at_hand)
    return _accepted(answer, response, at_hand)


def end_all(session: Session, endings: Sequence[streams.Ending]) -> list[StreamView | AfterliveError]:
    """Streams end (see `control.ledger.group`): for each what is to be shown of it, or its error."""
    found = streams.end_all(session, endings)
    return [one if isinstance(one, AfterliveError) else views.of(session, *one) for one in found]


def _accepted(answer: StreamAnswer, response: Response, at_hand: Services) -> StreamAnswer:
    at_hand.wake()
    response.headers["Location"] = f"/streams/{answer.id}"
    return answer


def _recording(at_hand: Services, source: str | None) -> str | None:
    """The recording as workers are given it, where one was named and it may be read."""
    return accept_source(source, at_hand.settings.media) if source else None


def _answer(session: Session, stream_id: str, request: Request, at_hand: Services) -> StreamAnswer:
    return with_links(views.snapshot(session, stream_id), request, at_hand)


def with_links(view: StreamView, request: Request, at_hand: Services) -> StreamAnswer:
    """The view with fresh links to watch the replay, where there is one."""
    if view.replay is None:
        return StreamAnswer.model_validate(view.model_dump())
    link = at_hand.link(request, view.id)
    return StreamAnswer.model_validate(
        {
            **view.model_dump(),
            "player_url": link.url,
            "playback_url": f"{link.url}master.m3u8",
            "links_expire_at": datetime.fromtimestamp(link.expires_at, UTC),
        }
    )
