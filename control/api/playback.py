"""What a playback link opens: the player page, how the replay is coming on, and the replay's files."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from control.api.files import serve
from control.api.openapi import described
from control.api.problems import problem_response, status_of
from control.api.services import Services, services, services_of
from control.api.signing import LinkExpired, LinkInvalid, verify
from control.errors import AfterliveError, NotFound, ObjectMissing
from control.ledger import views
from control.ledger.models import Replay
from control.ledger.views import StreamView

OPEN_TO_OTHER_SITES = {
    # The link is the credential and no cookie is involved: a shop's own player on another origin may read it.
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Range, If-None-Match",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Expose-Headers": "Accept-Ranges, Content-Length, Content-Range, ETag",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
PATH = "/play/str_01jq/1790000000-h2x…/"


def signed_link(stream_id: str, link: str, at_hand: Annotated[Services, Depends(services)]) -> int:
    """When the link ends (Unix seconds). Raises LinkInvalid, LinkExpired."""
    return verify(at_hand.secret, stream_id, link, time.time())


AtHand = Annotated[Services, Depends(services)]
Expires = Annotated[int, Depends(signed_link)]
router = APIRouter(
    prefix="/play/{stream_id}/{link}",
    tags=["playback"],
    dependencies=[Depends(signed_link)],
    responses=described(LinkInvalid(), LinkExpired(), NotFound(noun="stream", key="str_01jq"), path=PATH),
)
OPEN: dict[str, Any] = {"security": []}


class PlaybackStatus(BaseModel):
    """How a replay is coming on. File names are relative to the link."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "title": "Autumn ceramics, live from Yingge",
                    "state": "transcoding",
                    "playable": True,
                    "progress": 0.42,
                    "eta_seconds": 93.0,
                    "problem": None,
                    "playlist": "master.m3u8",
                    "poster": "poster.jpg",
                    "storyboard": None,
                }
            ]
        }
    )
    title: str
    state: str
    playable: bool
    progress: float
    eta_seconds: float | None
    problem: str | None
    playlist: str | None
    poster: str | None
    storyboard: str | None


@router.get("/", summary="The player page", response_class=HTMLResponse, openapi_extra=OPEN)
def player(stream_id: str, at_hand: AtHand) -> Response:
    """A page that plays the replay, from the first moment there is something to play."""
    view = _view(at_hand, stream_id)
    page = at_hand.pages.player(title=view.title)
    return HTMLResponse(page, headers=page_headers(media_origin(at_hand)))


@router.get("/status", summary="How the replay is coming on", openapi_extra=OPEN)
def status(stream_id: str, at_hand: AtHand, response: Response) -> PlaybackStatus:
    """What the player page asks every second until the replay is complete."""
    view = _view(at_hand, stream_id)
    replay = view.replay
    response.headers.update({"Cache-Control": "no-store", **OPEN_TO_OTHER_SITES})
    return PlaybackStatus(
        title=view.title,
        state=replay.state if replay else "live" if view.state == "live" else "removed",
        playable=bool(replay and replay.playable),
        progress=replay.progress if replay else 0.0,
        eta_seconds=replay.eta_seconds if replay else None,
        problem=replay.problem.code if replay and replay.problem else None,
        playlist="master.m3u8" if replay and replay.playable else None,
        poster=_present(at_hand, view, "poster.jpg"),
        storyboard=_present(at_hand, view, "storyboard.vtt"),
    )


@router.get("/_player/{version}/{name}", summary="The page's scripts and styles", openapi_extra=OPEN)
def asset(version: str, name: str, request: Request, at_hand: AtHand) -> Response:
    """The page's own files; their address changes with their content, so they may be kept for ever."""
    found = at_hand.pages.assets.get(name)
    if found is None or version != at_hand.pages.version:
        raise NotFound(noun="file", key=name)
    headers = {"Cache-Control": "private, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    zipped = "gzip" in request.headers.get("accept-encoding", "")
    if zipped:
        headers["Content-Encoding"] = "gzip"
    return Response(found.zipped if zipped else found.content, media_type=found.media_type, headers=headers)


@router.head("/{path:path}", include_in_schema=False)
@router.get("/{path:path}", summary="The replay's files", response_class=Response, openapi_extra=OPEN)
def file(stream_id: str, path: str, request: Request, at_hand: AtHand, expires_at: Expires) -> Response:
    """Playlists, segments, pictures: ranges and revalidation work; media on S3 is a redirect to the bucket."""
    # For each segment of each viewer: so two columns, not the whole view with its sums.
    with at_hand.ledger.read() as session:
        found = session.execute(select(Replay.prefix, Replay.state).where(Replay.stream_id == stream_id)).one_or_none()
    if found is None:
        raise ObjectMissing(key=path)
    response = serve(
        at_hand.store,
        found.prefix,
        path,
        request,
        finished=found.state == "completed",
        link_seconds=expires_at - int(time.time()),
    )
    response.headers.update(OPEN_TO_OTHER_SITES)
    return response


@router.options("/{path:path}", include_in_schema=False)
def preflight() -> Response:
    """A browser asks before it sends a range to another origin."""
    return Response(status_code=204, headers={**OPEN_TO_OTHER_SITES, "Access-Control-Max-Age": "86400"})


def install(app: FastAPI) -> None:
    """A person who opens a link that does not work gets a page; a program gets a problem document."""
    for kind in (LinkInvalid, LinkExpired):
        app.add_exception_handler(kind, _refused)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, AfterliveError)  # noqa: S101  (narrows the type; install registers these alone)
    person = request.url.path.endswith("/") and "text/html" in request.headers.get("accept", "")
    if not person:
        return problem_response(request, error, headers=OPEN_TO_OTHER_SITES)
    pages = services_of(request).pages
    expired = isinstance(error, LinkExpired)
    page = pages.refused(
        heading="This link has expired" if expired else "This link does not work",
        detail="Ask for a new one where you found it.",
    )
    headers = page_headers(style=pages.style_hash("refused.css"))
    return HTMLResponse(page, status_code=status_of(type(error)), headers=headers)


def page_headers(media: str | None = None, style: str | None = None) -> dict[str, str]:
    """Headers of an HTML page: it runs its own scripts and nothing else.

    `media` is another origin replays are on, `style` the hash of a style sheet inside the page.
    """
    own = f"'self' {media}" if media else "'self'"
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": style or "'self'",
        "img-src": f"{own} data:",
        "media-src": f"{own} blob:",  # Media Source Extensions hand the video a blob: URL
        "connect-src": own,
        "worker-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "X-Frame-Options": "DENY",
    }


def media_origin(at_hand: Services) -> str | None:
    """The origin the store's own links point to, None where files come from here."""
    link = at_hand.store.read_url("origin", 60)
    if link is None:
        return None
    parts = urlsplit(link)
    return f"{parts.scheme}://{parts.netloc}"


def _view(at_hand: Services, stream_id: str) -> StreamView:
    with at_hand.ledger.read() as session:
        return views.snapshot(session, stream_id)


def _present(at_hand: Services, view: StreamView, name: str) -> str | None:
    if view.replay is None or at_hand.store.size(f"{view.replay.prefix.rstrip('/')}/{name}") is None:
        return None
    return name
