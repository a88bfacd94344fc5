"""Payments: the form a buyer pays with, how each stands, and giving money back."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, FastAPI, Path, Request, Response
from fastapi import Body as InBody
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from sqlalchemy.orm import Session

from control.api import payment_webhook
from control.api.models import NO_NUL, Body
from control.api.openapi import described
from control.api.paging import After, Limit, link_next
from control.api.problems import RequestInvalid
from control.api.services import Services, services
from control.errors import AmountInvalid, Conflict, NotFound, PaymentsOff
from control.gateways import NOTICES, PaymentGateway, gateway
from control.gateways.base import Checkout
from control.ledger import orders, payment_refunds, payments
from control.ledger.engine import Ledger
from control.ledger.order_models import Order
from control.ledger.payment_models import Payment
from control.settings import Settings

router = APIRouter(tags=["payments"])
AtHand = Annotated[Services, Depends(services)]
_ID, _ORDER = "pay_019a3b5c7d8f2a4b", "ord_019a3b5c7d8f2a4b"
PaymentId = Annotated[str, Path(description="The payment's id.", max_length=64, pattern=NO_NUL, examples=[_ID])]
OrderId = Annotated[str, Path(description="The order's id.", max_length=64, pattern=NO_NUL, examples=[_ORDER])]
State = Literal["created", "pending", "paid", "failed", "expired", "refunding", "refunded", "review"]
_unknown = NotFound(noun="payment", key=_ID)
_no_order = NotFound(noun="order", key=_ORDER)
_invalid = RequestInvalid()
_off = PaymentsOff(reason="AFTERLIVE_PAYMENT_MERCHANT_ID and its keys are not set")


class PaymentView(BaseModel):
    """One try to have an order paid."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(examples=[_ID])
    order_id: str = Field(examples=[_ORDER])
    state: State
    gateway: str = Field(examples=["ecpay"])
    trade_no: str = Field(description="Its number at the gateway, of ours.", examples=["01K8F2Z9QM3T7W5X4B6C"])
    gateway_trade_no: str | None = Field(description="The gateway's own number of it.")
    method: str | None = Field(examples=["Credit_CreditCard"])
    amount_minor: int = Field(description="In the currency's minor units.", examples=[129900])
    currency: str = Field(examples=["TWD"])
    problem: str | None = Field(description="Why it failed, or has to be looked at.", examples=["amount-mismatch"])
    refund_reason: str | None = Field(description="requested, too-late or paid-twice")
    created_at: datetime
    updated_at: datetime
    paid_at: datetime | None
    refunded_at: datetime | None


class FormView(BaseModel):
    """A form for the buyer's browser to submit."""

    model_config = ConfigDict(from_attributes=True)

    action: str = Field(examples=["https://payment.ecpay.com.tw/Cashier/AioCheckOut/V5"])
    method: str = Field(examples=["POST"])
    fields: dict[str, str]


class PaymentOpened(BaseModel):
    """A payment, and the form the buyer pays it with."""

    payment: PaymentView
    form: FormView


class PaymentList(BaseModel):
    """Payments of one order, newest first."""

    items: list[PaymentView]


class PaymentPage(BaseModel):
    """One page of payments, newest first."""

    items: list[PaymentView]
    next: str | None = Field(None, description="Give it as `after` to get the next page; null on the last.")


class PaymentCreate(Body):
    """How the order is to be paid."""

    renew: StrictBool = Field(
        False, description="Another form even where one is open: for a buyer who left the gateway's page on the way."
    )


def install(app: FastAPI, settings: Settings, ledger: Ledger) -> None:
    """Take in the gateway's notices. Raises ConfigurationError where the gateway is half set up."""
    try:
        app.state.gateway = gateway(settings)
    except PaymentsOff:
        app.state.gateway = None
    found: PaymentGateway | None = app.state.gateway
    payment_webhook.install(app, ledger, {found.name: found} if found else {})


async def gateway_at_hand(request: Request) -> PaymentGateway:
    found: PaymentGateway | None = request.app.state.gateway
    if found is None:
        raise _off
    return found


@router.post(
    "/orders/{order_id}/payments",
    status_code=201,
    summary="An order is to be paid",
    responses=described(
        _no_order,
        _invalid,
        Conflict(reason=f"The order {_ORDER} is expired: only one that is reserved can be paid."),
        AmountInvalid(amount_minor=129950, currency="TWD", reason="it is not in whole units"),
        _off,
        path=f"/orders/{_ORDER}/payments",
    ),
)
def create(
    order_id: OrderId,
    request: Request,
    response: Response,
    at_hand: AtHand,
    gateway: Annotated[PaymentGateway, Depends(gateway_at_hand)],
    body: Annotated[PaymentCreate | None, InBody(openapi_examples={"again": {"value": {"renew": True}}})] = None,
) -> PaymentOpened:
    """Gives the form the buyer's browser submits to the gateway. While a payment is open, it is the same again; after
    one that failed, another. What becomes of it, the gateway tells us: see `GET /payments/{id}`."""
    with at_hand.ledger.write() as session:
        order = orders.get(session, order_id, lock=True)
        payment = payments.open_for(session, order, gateway, renew=bool(body and body.renew))
        form = gateway.checkout(_checkout(session, order, payment, _notice_url(request, at_hand, payment.gateway)))
        answer = PaymentOpened(payment=PaymentView.model_validate(payment), form=FormView.model_validate(form))
    response.headers["Location"] = f"/payments/{answer.payment.id}"
    return answer


@router.get(
    "/orders/{order_id}/payments",
    summary="An order's payments",
    responses=described(_no_order, _invalid, path=f"/orders/{_ORDER}/payments"),
)
def of_order(order_id: OrderId, at_hand: AtHand) -> PaymentList:
    """Every try, newest first."""
    with at_hand.ledger.read() as session:
        orders.get(session, order_id)
        found = payments.of_order(session, order_id)
        return PaymentList(items=[PaymentView.model_validate(payment) for payment in found])


@router.get("/payments", summary="Payments, newest first", responses=described(_unknown, _invalid, path="/payments"))
def index(
    request: Request,
    response: Response,
    at_hand: AtHand,
    limit: Limit = 20,
    after: After = None,
    state: State | None = None,
) -> PaymentPage:
    """Those in `review` wait for a person. Pages by key, not by number."""
    with at_hand.ledger.read() as session:
        found = payments.page(session, limit=limit + 1, after=after, state=state)
        items = [PaymentView.model_validate(payment) for payment in found[:limit]]
    following = link_next(request, response, items[-1].id if len(found) > limit else None)
    return PaymentPage(items=items, next=following)


@router.get(
    "/payments/{payment_id}", summary="A payment", responses=described(_unknown, _invalid, path=f"/payments/{_ID}")
)
def show(payment_id: PaymentId, at_hand: AtHand) -> PaymentView:
    """How it stands, as far as the gateway has told."""
    with at_hand.ledger.read() as session:
        return PaymentView.model_validate(payments.get(session, payment_id))


@router.post(
    "/payments/{payment_id}/check",
    status_code=202,
    summary="Ask the gateway how a payment stands",
    dependencies=[Depends(gateway_at_hand)],
    responses=described(_unknown, _invalid, _off, path=f"/payments/{_ID}/check"),
)
def check(payment_id: PaymentId, at_hand: AtHand) -> PaymentView:
    """Its answer settles one that is in review because two notices did not fit."""
    with at_hand.ledger.write() as session:
        answer = PaymentView.model_validate(payments.recheck(session, payment_id))
    at_hand.wake()
    return answer


@router.post(
    "/payments/{payment_id}/refund",
    status_code=202,
    summary="Give a payment back",
    responses=described(
        _unknown,
        _invalid,
        Conflict(reason=f"The payment {_ID} is pending: only one that is paid can be refunded."),
        path=f"/payments/{_ID}/refund",
    ),
)
def refund(payment_id: PaymentId, at_hand: AtHand) -> PaymentView:
    """All of it. Asking twice is the same as once."""
    with at_hand.ledger.write() as session:
        answer = PaymentView.model_validate(payment_refunds.request(session, payment_id))
    at_hand.wake()
    return answer


def _notice_url(request: Request, at_hand: Services, name: str) -> str:
    settings = at_hand.settings
    base = settings.payment.return_url or settings.api.public_url or str(request.base_url)
    return f"{base.rstrip('/')}{NOTICES}{name}"


def _checkout(session: Session, order: Order, payment: Payment, notice_url: str) -> Checkout:
    lines = orders.lines(session, order.id)
    items = tuple(f"{line.name} x {line.quantity}" for line in lines)
    return Checkout(
        payment.id, payment.trade_no, order.id, payment.amount_minor, payment.currency, items, order.locale,
        payment.created_at, notice_url,
    )  # fmt: skip
