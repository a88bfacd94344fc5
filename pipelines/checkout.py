"""What follows from what becomes of an order: its stock, the messages to its buyer, the figures, and who else is told.

Each fact has its effect in one transaction with the order locked, and only while the order is in the state the fact is
of: told twice, or late, it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy.orm import Session

from control.bus import names
from control.ledger import analytics, consequences, notices, order_upkeep, orders, outbox, webhooks
from control.ledger.base import now
from control.ledger.consequences import Step
from control.ledger.order_models import Order, OrderLine
from control.ledger.reservations import for_mail


def advance(session: Session, order_id: str, fact: str) -> None:
    """Have the fact its effect."""
    order = orders.get(session, order_id, lock=True)
    if orders.FACTS.get(order.state) == fact:
        CHECKOUT[fact](session, order)


def confirm(session: Session, order: Order) -> None:
    """It is paid: from here on it is the seller's to deliver."""
    at = order.paid_at or now()
    lines = orders.lines(session, order.id)
    orders.move(session, order, "confirmed", now())
    paid = {"order_id": order.id, "amount_minor": order.total_minor, "currency": order.currency}
    told = [
        _mail(order, names.SEND_ORDER_CONFIRMATION_EMAIL, "order_confirmation", for_mail(order, lines)),
        _mail(
            order,
            names.SEND_PAYMENT_CONFIRMATION_EMAIL,
            "payment_confirmation",
            paid | {"paid_at": at.isoformat()},
        ),
        _text(order),
    ]
    notices.request_all(session, told, locale=order.locale, about=order.id)
    webhooks.emit(session, "order.paid", about=order.id, data=_for_others(order, lines))
    # Last: the stock of a product, and the figures of a stream, are rows that all their orders want.
    order_upkeep.settle(session, order, lines)
    analytics.record_sale(
        session,
        order_id=order.id,
        stream_id=order.stream_id,
        seller_id=order.seller_id,
        amount_minor=order.total_minor,
        currency=order.currency,
        items=sum(line.quantity for line in lines),
        at=at,
    )


def give_back(session: Session, order: Order) -> None:
    """Nobody pays for it: its stock is free again."""
    _update_inventory(session, order)


def undo(session: Session, order: Order) -> None:
    """The money went back."""
    _update_inventory(session, order)
    notices.request_all(session, [_text(order)], locale=order.locale, about=order.id)
    analytics.record_refund(session, order_id=order.id, at=order.updated_at)


CHECKOUT: Final[Mapping[str, Step]] = {
    "order.paid": confirm,
    "order.cancelled": give_back,
    "order.expired": give_back,
    "order.refunded": undo,
}
"""What follows from each fact."""
for _fact, _step in CHECKOUT.items():
    consequences.know(_fact, _step)


def _update_inventory(session: Session, order: Order) -> None:
    outbox.add(session, names.UPDATE_INVENTORY, {"order_id": order.id})


def _mail(order: Order, spec: names.TaskSpec, template: str, data: dict[str, Any]) -> notices.Asked:
    return notices.Asked(spec, f"{template}:{order.id}", order.buyer_email, template, data)


def _text(order: Order) -> notices.Asked:
    key, data = f"order_status:{order.id}:{order.state}", {"order_id": order.id, "state": order.state}
    return notices.Asked(names.SEND_ORDER_STATUS_SMS, key, order.buyer_phone, "order_status", data, channel="sms")


def _for_others(order: Order, lines: Sequence[OrderLine]) -> dict[str, Any]:
    """Nothing of it says who the buyer is."""
    return {
        "order_id": order.id,
        "seller_id": order.seller_id,
        "stream_id": order.stream_id,
        "state": order.state,
        "total_minor": order.total_minor,
        "currency": order.currency,
        "paid_at": order.paid_at.isoformat() if order.paid_at else None,
        "lines": [
            {
                "product_id": line.product_id,
                "name": line.name,
                "quantity": line.quantity,
                "unit_price_minor": line.unit_price_minor,
            }
            for line in lines
        ],
    }
