"""The fake's HTTP: ECPay's three addresses, and `/_fake/…` to see inside and to order lies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel

from control.fake_ecpay import page
from control.fake_ecpay.notifier import Notifier
from control.fake_ecpay.trades import Lies, Merchant, Trade, unknown
from control.gateways.ecpay.notice import parse
from control.gateways.ecpay.signature import is_genuine

_STAMP_SECONDS: Final = 180  # developers.ecpay.com.tw/?p=16594
_HANG_SECONDS: Final = 30.0
_NEEDED: Final = (
    *("MerchantTradeNo", "MerchantTradeDate", "TotalAmount"),
    *("TradeDesc", "ItemName", "ReturnURL"),
)


class Paying(BaseModel):
    """What the buyer does, or the merchant tries."""

    fail: bool = False
    simulate: bool = False


class Releasing(BaseModel):
    """In which order: held, reversed or shuffled."""

    order: str = "held"


def create_fake(merchant: Merchant | None = None, *, again_seconds: float = 600.0, times_again: int = 4) -> FastAPI:
    """The server, for one merchant. It keeps nothing."""
    merchant = merchant or Merchant()
    trades: dict[str, Trade] = {}
    notifier = Notifier(merchant, again_seconds, times_again)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        notifier.stop()

    app = FastAPI(title="Fake ECPay", lifespan=lifespan, openapi_url=None)

    async def form(request: Request) -> dict[str, str] | None:
        """None where it is not the merchant's."""
        try:
            fields = parse(await request.body())
        except ValueError:
            return None
        mine = fields.get("MerchantID") == merchant.id and is_genuine(fields, merchant.hash_key, merchant.hash_iv)
        return fields if mine else None

    def told(fields: dict[str, str]) -> Response:
        return PlainTextResponse(urlencode(fields))

    @app.post("/Cashier/AioCheckOut/V5")
    async def check_out(request: Request) -> Response:
        fields = await form(request)
        if fields is None:
            return HTMLResponse(page.said("CheckMacValue Error"), 400)
        number = fields.get("MerchantTradeNo", "")
        wrong = next((name for name in _NEEDED if not fields.get(name)), None)
        if wrong or not fields["TotalAmount"].isdigit() or not number.isalnum() or len(number) > 20:
            return HTMLResponse(page.said(f"{wrong or 'Parameter'} Error"), 400)
        if number in trades:
            return HTMLResponse(page.said("MerchantTradeNo was used before"), 400)
        trades[number] = Trade(fields)
        return HTMLResponse(page.checkout(trades[number]))

    @app.post("/Cashier/QueryTradeInfo/V5")
    async def query(request: Request) -> Response:
        lie = notifier.lies.query
        if lie == "hang":
            await asyncio.sleep(_HANG_SECONDS)
        if lie == "error":
            return PlainTextResponse("Service Unavailable", 503)
        fields = await form(request)
        if fields is None:
            return PlainTextResponse("0|CheckMacValue Error")
        if abs(time.time() - int(fields.get("TimeStamp", "0"))) > _STAMP_SECONDS:
            return PlainTextResponse("0|TimeStamp Error")
        number = fields.get("MerchantTradeNo", "")
        answer = trades[number].answer() if number in trades else unknown(merchant.id, number)
        answer = merchant.sign(answer)
        return told({**answer, "TradeStatus": "1"} if lie == "forged" else answer)

    @app.post("/CreditDetail/DoAction")
    async def do_action(request: Request) -> Response:
        lie = notifier.lies.refund
        if lie == "error":
            return PlainTextResponse("Service Unavailable", 503)
        fields = await form(request)
        if fields is None:
            return PlainTextResponse("0|CheckMacValue Error")
        trade = trades.get(fields.get("MerchantTradeNo", ""))
        if trade is None or trade.trade_no != fields.get("TradeNo") or lie == "refuse":
            refusal: str | None = "error_nopay"
        else:
            refusal = trade.act(fields.get("Action", ""), int(fields.get("TotalAmount", "0")))
        if lie == "lose" and refusal is None:
            return PlainTextResponse("Bad Gateway", 502)
        about = {name: fields.get(name, "") for name in ("MerchantID", "MerchantTradeNo", "TradeNo")}
        return told({**about, "RtnCode": "0" if refusal else "1", "RtnMsg": refusal or ""})

    def decide(number: str, what: Paying) -> Response:
        trade = trades.get(number)
        if trade is None:
            return JSONResponse({"detail": "no such trade"}, 404)
        if what.fail:
            trade.decline()
        elif not what.simulate:  # a trial of the merchant's changes nothing of the trade
            trade.pay()
        notifier.tell(trade, paid=not what.fail, simulated=what.simulate)
        return JSONResponse(trade.shown())

    @app.post("/_fake/page/{number}")
    async def button(number: str, request: Request) -> Response:
        declined = parse(await request.body()).get("decision") == "decline"
        if decide(number, Paying(fail=declined)).status_code != 200:
            return HTMLResponse(page.said("No such trade"), 404)
        return HTMLResponse(
            page.said("Declined" if declined else "Paid", trades[number].asked.get("ClientBackURL", ""))
        )

    @app.post("/_fake/trades/{number}/pay")
    async def pay(number: str, what: Paying) -> Response:
        return decide(number, what)

    @app.post("/_fake/trades/{number}/capture")
    async def capture(number: str) -> None:
        trades[number].captured = True

    @app.get("/_fake/trades")
    async def all_trades() -> list[dict[str, Any]]:
        return [trade.shown() for trade in trades.values()]

    @app.get("/_fake/notices")
    async def notices() -> list[dict[str, Any]]:
        return [asdict(attempt) for attempt in notifier.attempts]

    @app.put("/_fake/lies")
    async def lie(lies: Lies) -> Lies:
        notifier.lies = lies
        return lies

    @app.post("/_fake/release")
    async def release(what: Releasing) -> dict[str, int]:
        return {"released": notifier.release(what.order)}

    return app
