"""The peer of our shop, as the guides have it: handlers store and call `delay()`, each task calls the next. The same
tables; no outbox, no inbox, no Idempotency-Key."""

from __future__ import annotations

import os
from typing import Any, Final

import httpx
from celery import Celery
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel
from sqlalchemy import create_engine, update
from sqlalchemy.orm import Session

from control.gateways.ecpay.signature import is_genuine
from control.ledger.base import new_id, now
from control.ledger.order_models import Order, OrderChange, OrderLine, Product
from control.ledger.payment_models import Payment
from tests.benchmarks.bus.notices import HASH_IV, HASH_KEY, MERCHANT, PATH
from tests.benchmarks.bus.plain import BACKEND, BROKER

DATABASE: Final = "BENCH_DATABASE"
PROVIDER: Final = "BENCH_PROVIDER"

celery_app = Celery("plain_shop", broker=os.environ.get(BROKER), backend=os.environ.get(BACKEND), set_as_current=False)
app = FastAPI()
engine = create_engine(os.environ.get(DATABASE, "sqlite://"))
_client = httpx.Client()


class Line(BaseModel):
    product_id: str
    quantity: int


class Ask(BaseModel):
    buyer_id: str
    buyer_email: str
    buyer_phone: str
    locale: str
    lines: list[Line]


@app.get("/healthz")
def health() -> str:
    return "ok"


@app.post("/orders", status_code=201)
def order(body: Ask) -> dict[str, str]:
    order_id, at = new_id("ord"), now()
    with Session(engine) as session, session.begin():
        products = {line.product_id: session.get_one(Product, line.product_id) for line in body.lines}
        total = sum(products[line.product_id].price_minor * line.quantity for line in body.lines)
        session.add(
            Order(
                id=order_id, buyer_id=body.buyer_id, buyer_email=body.buyer_email, buyer_phone=body.buyer_phone,
                locale=body.locale, seller_id="seller", state="placed", total_minor=total, currency="TWD",
                created_at=at, updated_at=at,
            )
        )  # fmt: skip
        session.flush()
        for number, line in enumerate(body.lines):
            product = products[line.product_id]
            session.add(
                OrderLine(
                    order_id=order_id, number=number, product_id=product.id, name=product.name,
                    quantity=line.quantity, unit_price_minor=product.price_minor,
                )
            )  # fmt: skip
    process_order.delay(order_id)
    return {"id": order_id, "state": "placed"}


@app.post("/orders/{order_id}/payments", status_code=201)
def pay(order_id: str) -> dict[str, Any]:
    payment_id, at = new_id("pay"), now()
    with Session(engine) as session, session.begin():
        total = session.get_one(Order, order_id).total_minor
        session.add(
            Payment(
                id=payment_id, order_id=order_id, gateway="ecpay", merchant_id=MERCHANT, trade_no=payment_id[-20:],
                amount_minor=total, currency="TWD", state="pending", created_at=at, updated_at=at, waits_from=at,
            )
        )  # fmt: skip
    return {"payment": {"id": payment_id, "trade_no": payment_id[-20:], "amount_minor": total}}


@app.post(PATH)
async def notice(request: Request) -> PlainTextResponse:
    fields = {name: str(value) for name, value in (await request.form()).items()}
    if not is_genuine(fields, HASH_KEY, HASH_IV):
        raise HTTPException(403)
    await run_in_threadpool(process_payment.delay, fields["CustomField1"])
    return PlainTextResponse("1|OK")


@celery_app.task(shared=False)
def process_order(order_id: str) -> None:
    with Session(engine) as session, session.begin():
        found = session.get_one(Order, order_id)
        for line in session.query(OrderLine).filter_by(order_id=order_id):
            session.execute(
                update(Product)
                .where(Product.id == line.product_id, Product.stock >= line.quantity)
                .values(stock=Product.stock - line.quantity, reserved=Product.reserved + line.quantity)
            )
        found.state = "reserved"


@celery_app.task(shared=False)
def process_payment(payment_id: str) -> None:
    with Session(engine) as session, session.begin():
        payment = session.get_one(Payment, payment_id)
        payment.state, order_id = "paid", payment.order_id
        session.get_one(Order, order_id).state = "paid"
    confirm.delay(order_id)


@celery_app.task(shared=False)
def confirm(order_id: str) -> None:
    with Session(engine) as session, session.begin():
        found = session.get_one(Order, order_id)
        found.state, phone, mail = "confirmed", found.buyer_phone, found.buyer_email
        session.add(OrderChange(order_id=order_id, state_before="paid", state="confirmed", at=now()))
    update_inventory.delay(order_id)
    send_mail.delay(mail, "Your order is confirmed")
    send_mail.delay(mail, "Your payment was received")
    send_sms.delay(phone, "Your order is confirmed")


@celery_app.task(shared=False)
def update_inventory(order_id: str) -> None:
    with Session(engine) as session, session.begin():
        for line in session.query(OrderLine).filter_by(order_id=order_id):
            session.execute(
                update(Product)
                .where(Product.id == line.product_id)
                .values(reserved=Product.reserved - line.quantity, sold=Product.sold + line.quantity)
            )


@celery_app.task(shared=False)
def send_mail(to: str, subject: str) -> None:
    print(to, subject)


@celery_app.task(shared=False)
def send_sms(phone: str, text: str) -> None:
    _client.post(os.environ[PROVIDER], json={"to": phone, "text": text}).raise_for_status()
