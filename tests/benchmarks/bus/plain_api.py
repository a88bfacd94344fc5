"""The peer of our API: a handler that checks the notice, writes the same row, commits, and calls `delay()`."""

from __future__ import annotations

import os
from typing import Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from control.gateways.ecpay.signature import is_genuine
from control.ledger.base import now
from control.ledger.payment_models import PaymentNotice
from tests.benchmarks.bus.notices import HASH_IV, HASH_KEY, PATH
from tests.benchmarks.bus.plain import payment_notified

DATABASE: Final = "BENCH_DATABASE"

app = FastAPI()
engine = create_engine(os.environ.get(DATABASE, "sqlite://"))


@app.get("/healthz")
def health() -> str:
    return "ok"


@app.post(PATH)
async def take(request: Request) -> PlainTextResponse:
    fields = {name: str(value) for name, value in (await request.form()).items()}
    if not is_genuine(fields, HASH_KEY, HASH_IV):
        raise HTTPException(403)
    await run_in_threadpool(_store, fields)
    return PlainTextResponse("1|OK")


def _store(fields: dict[str, str]) -> None:
    notice_id = f"{fields['MerchantTradeNo']}.{fields['TradeNo']}.{fields['RtnCode']}"
    try:
        with Session(engine) as session, session.begin():
            session.add(
                PaymentNotice(
                    id=notice_id, gateway="ecpay", trade_no=fields["MerchantTradeNo"], fields=fields, received_at=now()
                )
            )
    except IntegrityError:
        return  # told before
    payment_notified.delay(notice_id)
