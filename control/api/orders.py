"""Orders: they are placed, looked at, and cancelled while they are not paid."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi import Body as InBody

from control import phones
from control.api.models import NO_NUL
from control.api.openapi import described
from control.api.paging import After, Limit, link_next
from control.api.problems import RequestInvalid
from control.api.services import Services, services
from control.api.shop_models import Key, OrderCreate, OrderId, OrderPage
from control.errors import (
    Conflict,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    NotFound,
    OrderMixed,
    PhoneInvalid,
    ProductInactive,
    ProductUnknown,
    QuantityRefused,
)
from control.ledger import idempotency, order_placing, order_views, orders
from control.ledger.group import GroupCommit
from control.ledger.idempotency import Answer, InProgress
from control.ledger.order_placing import Placement, Wanted
from control.ledger.order_views import ORDER_ID, PRODUCT_ID, OrderDetails, OrderState, OrderView
from control.settings import ShopSettings

router = APIRouter(prefix="/orders", tags=["orders"])
AtHand = Annotated[Services, Depends(services)]
REPLAYED: Final = "Idempotent-Replayed"
_PATH: Final = f"/orders/{ORDER_ID}"
_unknown = NotFound(noun="order", key=ORDER_ID)
_invalid = RequestInvalid()
_paid = Conflict(reason=f"The order {ORDER_ID} is paid: it cannot become cancelled.")


def replayable(status: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of an answer that may be an earlier one's."""
    told = "`true` where the request came before with its Idempotency-Key, and this is its answer."
    return {status: {"headers": {REPLAYED: {"description": told, "schema": {"type": "string", "enum": ["true"]}}}}}


class Desk:
    """What orders go through: those that come at once are committed together (`control.ledger.group`)."""

    def __init__(self, at_hand: Services) -> None:
        self.placements: GroupCommit[Placement, Answer] = GroupCommit(at_hand.ledger, order_placing.place_all)
        self.in_progress = InProgress()


def install(app: FastAPI) -> None:
    """Open the desk."""
    app.state.shop_desk = Desk(app.state.services)


async def desk(request: Request) -> Desk:
    found: Desk = request.app.state.shop_desk
    return found


@router.post(
    "",
    status_code=201,
    summary="A buyer orders",
    response_model=OrderView,
    responses=replayable(201)
    | described(
        _invalid,
        ProductUnknown(product_id=PRODUCT_ID),
        ProductInactive(product_id=PRODUCT_ID),
        OrderMixed(what="seller"),
        QuantityRefused(reason=f"at most 99 of {PRODUCT_ID} may be ordered at once"),
        PhoneInvalid(reason="it is not a mobile phone's"),
        IdempotencyKeyReused(),
        IdempotencyKeyInUse(retry_after_seconds=1),
        path="/orders",
    ),
)
async def create(
    body: Annotated[
        OrderCreate,
        InBody(
            openapi_examples={
                "two": {
                    "summary": "Two of a product",
                    "value": {
                        "buyer_id": "buyer-7",
                        "buyer_email": "buyer@example.com",
                        "buyer_phone": "0912 345 678",
                        "lines": [{"product_id": PRODUCT_ID, "quantity": 2}],
                    },
                }
            }
        ),
    ],
    at_hand: AtHand,
    at_desk: Annotated[Desk, Depends(desk)],
    key: Key = None,
) -> Response:
    """Answers when the order is stored, `placed`. A moment later it is `reserved`, and its stock kept until
    `expires_at` for it to be paid; or it is `sold_out`: all of it is to be had, or none."""
    placement = _placement(body, key, at_hand)
    at_desk.in_progress.begin(key)
    try:
        future = at_desk.placements.submit(placement)
    except BaseException:
        at_desk.in_progress.end(key)
        raise
    # Not when this request ends: who hangs up before that may ask again before it is committed.
    future.add_done_callback(lambda _: at_desk.in_progress.end(key))
    answer = await asyncio.wrap_future(future)
    if not answer.replayed:
        at_hand.wake()
    return answered(answer)


@router.get("", summary="Orders, newest first", responses=described(_invalid, path="/orders"))
def index(
    request: Request,
    response: Response,
    at_hand: AtHand,
    limit: Limit = 20,
    after: After = None,
    buyer_id: Annotated[str | None, Query(max_length=64, pattern=NO_NUL)] = None,
    seller_id: Annotated[str | None, Query(max_length=64, pattern=NO_NUL)] = None,
    state: OrderState | None = None,
) -> OrderPage:
    """Pages by key, not by number: orders that come in between shift nothing."""
    with at_hand.ledger.read() as session:
        found = orders.page(session, limit=limit + 1, after=after, buyer_id=buyer_id, seller_id=seller_id, state=state)
        items = order_views.of_all(session, found[:limit])
    following = link_next(request, response, items[-1].id if len(found) > limit else None)
    return OrderPage(items=items, next=following)


@router.get("/{order_id}", summary="An order", responses=described(_unknown, _invalid, path=_PATH))
def show(order_id: OrderId, at_hand: AtHand) -> OrderDetails:
    """All there is to know of it, its buyer and its history included."""
    with at_hand.ledger.read() as session:
        return order_views.details(session, order_id)


@router.post(
    "/{order_id}/cancel",
    summary="The buyer does not want it",
    responses=described(_unknown, _invalid, _paid, path=f"{_PATH}/cancel"),
)
def cancel(order_id: OrderId, at_hand: AtHand) -> OrderView:
    """As long as it is not paid; a paid one is refunded by its payment. Cancelling twice is the same as once."""
    with at_hand.ledger.write() as session:
        order = orders.cancel(session, order_id)
        answer = order_views.of(order, orders.lines(session, order_id))
    at_hand.wake()
    return answer


def answered(answer: Answer) -> Response:
    """An answer that may be an earlier one's."""
    headers = {"Location": answer.location} if answer.location else {}
    if answer.replayed:
        headers[REPLAYED] = "true"
    return Response(answer.body, answer.status, headers, media_type="application/json")


def _placement(body: OrderCreate, key: str | None, at_hand: Services) -> Placement:
    """Raises QuantityRefused, PhoneInvalid."""
    _check(body, at_hand.settings.shop)
    phone = phones.normalise(body.buyer_phone, at_hand.settings.otp.region) if body.buyer_phone else None
    return Placement(
        buyer_id=body.buyer_id,
        lines=tuple(Wanted(line.product_id, line.quantity) for line in body.lines),
        buyer_email=body.buyer_email,
        buyer_phone=phone,
        locale=body.locale,
        stream_id=body.stream_id,
        key=key,
        fingerprint=idempotency.fingerprint("POST /orders", body.model_dump_json()),
    )


def _check(body: OrderCreate, settings: ShopSettings) -> None:
    if len(body.lines) > settings.max_lines:
        raise QuantityRefused(reason=f"at most {settings.max_lines} products may be ordered at once")
    seen: set[str] = set()
    for line in body.lines:
        if line.product_id in seen:
            raise QuantityRefused(reason=f"the product {line.product_id} is in it twice")
        if line.quantity > settings.max_quantity:
            most = f"at most {settings.max_quantity} of {line.product_id}"
            raise QuantityRefused(reason=f"{most} may be ordered at once")
        seen.add(line.product_id)
