"""`GET /streams/{id}/events`: server-sent events, from the ledger, so any process can serve them and none is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from control.api.openapi import described
from control.api.services import Services, services
from control.api.streams import StreamId
from control.errors import NotFound
from control.ledger import views
from control.ledger.replays import FINAL
from control.ledger.views import Event, StreamView

log = logging.getLogger(__name__)
router = APIRouter(prefix="/streams", tags=["streams"])

LOOK_EVERY_SECONDS = 0.5
RECONNECT_MILLISECONDS = 2000

_EXAMPLE = (
    'event: progress\ndata: {"id": "str_01jq", "state": "ended", "replay": {"state": "transcoding", "progress": 0.42}}'
    '\n\nid: 7\nevent: replay.playable\ndata: {"prefix": "replays/rep_01jq/"}\n\n'
)
AtHand = Annotated[Services, Depends(services)]


def start_after(
    stream_id: StreamId,
    at_hand: AtHand,
    last_event_id: Annotated[str | None, Header(description="Resume after this event.", examples=["7"])] = None,
) -> int:
    """Id of the last event the client has, 0 for none; settled before the stream begins, so errors are real ones.

    A client that comes back after the last event gets 204, which tells EventSource to stop coming back.
    """
    after = int(last_event_id) if last_event_id and last_event_id.isascii() and last_event_id.isdigit() else 0
    after = min(after, 2**63 - 1)
    view, happened = _look(at_hand, stream_id, after)
    if after and not happened and is_final(view):
        raise HTTPException(204)
    return after


@router.get(
    "/{stream_id}/events",
    summary="Follow a stream",
    response_class=EventSourceResponse,
    responses={
        **described(NotFound(noun="stream", key="str_01jq"), path="/streams/str_01jq/events"),
        200: {"content": {"text/event-stream": {"example": _EXAMPLE}}},
        204: {"description": "Nothing more will happen."},
    },
)
async def follow(
    stream_id: StreamId, at_hand: AtHand, after: Annotated[int, Depends(start_after)]
) -> AsyncIterator[ServerSentEvent]:
    """`progress` events carry the whole stream, at most two a second; the others say what happened, each with an id
    to resume after (`Last-Event-ID`). Ends when the replay is completed, failed or cancelled."""
    yield ServerSentEvent(comment="following", retry=RECONNECT_MILLISECONDS)
    seen: Any = None
    while not at_hand.closing.is_set():
        try:
            view, happened = await run_in_threadpool(_look, at_hand, stream_id, after)
        except (OperationalError, NotFound) as error:
            # The answer has begun: all that is left is to end it. The client comes back and resumes.
            log.warning("event stream of %s ends early: %s", stream_id, error)
            return
        # Progress first: a client that stops at `replay.completed` has seen the last of it.
        if view.version != seen:
            seen = view.version
            yield ServerSentEvent(event="progress", data=view)
        for event in happened:
            after = event.id
            yield ServerSentEvent(event=event.name, id=str(event.id), data={"at": event.at, **event.data})
        if is_final(view):
            return
        await asyncio.sleep(LOOK_EVERY_SECONDS)


def is_final(view: StreamView) -> bool:
    """Whether nothing more will happen unless somebody asks for it."""
    return view.replay is not None and view.replay.state in FINAL


def _look(at_hand: Services, stream_id: str, after: int) -> tuple[StreamView, Sequence[Event]]:
    """The stream and what happened to it since, of one moment."""
    with at_hand.ledger.read() as session:
        return views.snapshot(session, stream_id), views.events_after(session, stream_id, after)
