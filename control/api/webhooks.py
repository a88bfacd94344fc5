"""Webhooks: where other systems are told of what happened, and what became of each delivery."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response

from control.api.models import NO_NUL, Instant
from control.api.openapi import described
from control.api.paging import After, Limit, link_next
from control.api.problems import RequestInvalid
from control.api.services import Services, services
from control.api.webhook_models import (
    DeliveryAnswer,
    DeliveryDetail,
    DeliveryPage,
    DeliveryState,
    EndpointAnswer,
    EndpointChange,
    EndpointCreate,
    EndpointPage,
    EndpointWithSecret,
    ReplayedAnswer,
)
from control.errors import Conflict, NotFound, WebhookUrlRefused
from control.ledger import webhook_deliveries, webhook_endpoints
from control.ledger.webhook_urls import check_url

router = APIRouter(tags=["webhooks"])
AtHand = Annotated[Services, Depends(services)]
_ENDPOINT, _DELIVERY = "whe_019a3b5c7d8f2a4b", "whd_019a3b5c7d8f2a4b"
EndpointId = Annotated[str, Path(description="The endpoint's id.", examples=[_ENDPOINT], max_length=64, pattern=NO_NUL)]
DeliveryId = Annotated[str, Path(description="The delivery's id.", examples=[_DELIVERY], max_length=64, pattern=NO_NUL)]

_path = f"/webhook-endpoints/{_ENDPOINT}"
_unknown = NotFound(noun="webhook endpoint", key=_ENDPOINT)
_no_delivery = NotFound(noun="webhook delivery", key=_DELIVERY)
_disabled = Conflict(reason=f"The webhook endpoint {_ENDPOINT} is disabled: enable it first.")
_refused = WebhookUrlRefused(reason="its host is in a private network")
_invalid = RequestInvalid()


@router.post(
    "/webhook-endpoints",
    status_code=201,
    summary="Have another system told",
    responses=described(_invalid, _refused, path="/webhook-endpoints"),
)
def create(
    body: Annotated[
        EndpointCreate,
        Body(
            openapi_examples={
                "shop": {
                    "summary": "A shop wants to know what can be watched and what was paid",
                    "value": {
                        "url": "https://shop.example/hooks/afterlive",
                        "events": ["replay.playable", "order.paid"],
                    },
                }
            }
        ),
    ],
    response: Response,
    at_hand: AtHand,
) -> EndpointWithSecret:
    """Deliveries are signed by [Standard Webhooks](https://www.standardwebhooks.com) with the secret of this answer,
    which is shown this once. They may come more than once, and in any order: `webhook-id` tells them apart."""
    _check(body.url, at_hand)
    with at_hand.ledger.write() as session:
        made = webhook_endpoints.create(
            session,
            url=body.url,
            events=sorted(set(body.events)),
            seller_id=body.seller_id,
            description=body.description,
        )
        answer = EndpointWithSecret.model_validate(made)
    response.headers["Location"] = f"/webhook-endpoints/{answer.id}"
    response.headers["Cache-Control"] = "no-store"
    return answer


@router.get(
    "/webhook-endpoints",
    summary="Webhook endpoints, newest first",
    responses=described(_invalid, path="/webhook-endpoints"),
)
def index(
    request: Request,
    response: Response,
    at_hand: AtHand,
    limit: Limit = 20,
    after: After = None,
    seller_id: Annotated[str | None, Query(max_length=64, pattern=NO_NUL)] = None,
) -> EndpointPage:
    """Pages by key, not by number."""
    with at_hand.ledger.read() as session:
        found = webhook_endpoints.page(session, limit=limit + 1, after=after, seller_id=seller_id)
        items = [EndpointAnswer.model_validate(one) for one in found[:limit]]
    return EndpointPage(items=items, next=_next(request, response, items, more=len(found) > limit))


@router.get(
    "/webhook-endpoints/{endpoint_id}",
    summary="A webhook endpoint",
    responses=described(_unknown, path=_path),
)
def show(endpoint_id: EndpointId, at_hand: AtHand) -> EndpointAnswer:
    """All but its secret."""
    with at_hand.ledger.read() as session:
        return EndpointAnswer.model_validate(webhook_endpoints.get(session, endpoint_id))


@router.patch(
    "/webhook-endpoints/{endpoint_id}",
    summary="Change, disable or enable it",
    responses=described(_unknown, _invalid, _refused, path=_path),
)
def change(
    endpoint_id: EndpointId,
    body: Annotated[
        EndpointChange,
        Body(openapi_examples={"enable": {"summary": "Enable it again", "value": {"state": "enabled"}}}),
    ],
    at_hand: AtHand,
) -> EndpointAnswer:
    """What happens while it is disabled it is not told of; what was pending before is sent once it is enabled."""
    if body.url is not None:
        _check(body.url, at_hand)
    with at_hand.ledger.write() as session:
        answer = EndpointAnswer.model_validate(webhook_endpoints.change(session, endpoint_id, body.changes()))
    at_hand.wake()
    return answer


@router.delete(
    "/webhook-endpoints/{endpoint_id}",
    status_code=204,
    summary="Tell it nothing any more",
    responses=described(_unknown, path=_path),
)
def remove(endpoint_id: EndpointId, at_hand: AtHand) -> None:
    """What was pending is discarded; its secret is gone."""
    with at_hand.ledger.write() as session:
        webhook_endpoints.remove(session, endpoint_id)


@router.post(
    "/webhook-endpoints/{endpoint_id}/rotate-secret",
    summary="A new secret",
    responses=described(_unknown, path=f"{_path}/rotate-secret"),
)
def rotate_secret(endpoint_id: EndpointId, response: Response, at_hand: AtHand) -> EndpointWithSecret:
    """For 24 hours everything is signed with both, the new one first; twice, and the old one is out at once."""
    response.headers["Cache-Control"] = "no-store"
    with at_hand.ledger.write() as session:
        return EndpointWithSecret.model_validate(webhook_endpoints.rotate_secret(session, endpoint_id))


@router.post(
    "/webhook-endpoints/{endpoint_id}/test",
    status_code=202,
    summary="Send it a webhook.test",
    responses=described(_unknown, _disabled, path=f"{_path}/test"),
)
def test(endpoint_id: EndpointId, at_hand: AtHand) -> DeliveryAnswer:
    """The delivery tells how it went."""
    with at_hand.ledger.write() as session:
        delivery_id = webhook_endpoints.test(session, endpoint_id)
        session.flush()
        answer = DeliveryAnswer.model_validate(webhook_deliveries.get(session, delivery_id))
    at_hand.wake()
    return answer


@router.get(
    "/webhook-endpoints/{endpoint_id}/deliveries",
    summary="Its deliveries, newest first",
    responses=described(_unknown, _invalid, path=f"{_path}/deliveries"),
)
def deliveries(
    endpoint_id: EndpointId,
    request: Request,
    response: Response,
    at_hand: AtHand,
    limit: Limit = 20,
    after: After = None,
    state: DeliveryState | None = None,
) -> DeliveryPage:
    """Pages by key, not by number."""
    with at_hand.ledger.read() as session:
        webhook_endpoints.get(session, endpoint_id)
        found = webhook_deliveries.page(session, endpoint_id, limit=limit + 1, after=after, state=state)
        items = [DeliveryAnswer.model_validate(one) for one in found[:limit]]
    return DeliveryPage(items=items, next=_next(request, response, items, more=len(found) > limit))


@router.post(
    "/webhook-endpoints/{endpoint_id}/replay",
    status_code=202,
    summary="Send again what failed",
    responses=described(_unknown, _disabled, _invalid, path=f"{_path}/replay"),
)
def replay_failed(
    endpoint_id: EndpointId,
    at_hand: AtHand,
    since: Annotated[
        Instant | None, Query(description="Only what is as young.", examples=["2026-10-01T00:00:00Z"])
    ] = None,
) -> ReplayedAnswer:
    """The oldest first, so many at a time."""
    with at_hand.ledger.write() as session:
        webhook_endpoints.get(session, endpoint_id)
        number = webhook_deliveries.replay_failed(session, endpoint_id, since)
    at_hand.wake()
    return ReplayedAnswer(replayed=number, more=number == webhook_deliveries.MOST)


@router.get(
    "/webhook-deliveries/{delivery_id}",
    summary="A webhook delivery",
    responses=described(_no_delivery, path=f"/webhook-deliveries/{_DELIVERY}"),
)
def show_delivery(delivery_id: DeliveryId, at_hand: AtHand) -> DeliveryDetail:
    """How it stands, and what is sent."""
    with at_hand.ledger.read() as session:
        return DeliveryDetail.model_validate(webhook_deliveries.get(session, delivery_id))


@router.post(
    "/webhook-deliveries/{delivery_id}/replay",
    status_code=202,
    summary="Send it again",
    responses=described(_no_delivery, _disabled, path=f"/webhook-deliveries/{_DELIVERY}/replay"),
)
def replay(delivery_id: DeliveryId, at_hand: AtHand) -> DeliveryAnswer:
    """Also what was delivered; with the same `webhook-id`, by which its receiver knows it."""
    with at_hand.ledger.write() as session:
        answer = DeliveryAnswer.model_validate(webhook_deliveries.replay(session, delivery_id))
    at_hand.wake()
    return answer


def _check(url: str, at_hand: Services) -> None:
    settings = at_hand.settings.webhook
    check_url(url, allow_private=settings.allow_private, allow_http=settings.allow_http, ports=settings.ports)


def _next(
    request: Request, response: Response, items: list[EndpointAnswer] | list[DeliveryAnswer], *, more: bool
) -> str | None:
    return link_next(request, response, items[-1].id if more else None)
