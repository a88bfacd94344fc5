"""ECPay for tests: the fake on a port, what a buyer does there, and notices made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
from pydantic import SecretStr

from control.fake_ecpay.app import create_fake
from control.fake_ecpay.server import running
from control.fake_ecpay.trades import Merchant
from control.gateways.base import Form
from control.settings import PaymentSettings

MERCHANT = Merchant()


def payment_settings(url: str = "http://127.0.0.1:9", **changes: Any) -> PaymentSettings:
    """Of the merchant everybody has for trials."""
    facts: dict[str, Any] = {
        "merchant_id": MERCHANT.id,
        "hash_key": SecretStr(MERCHANT.hash_key),
        "hash_iv": SecretStr(MERCHANT.hash_iv),
        "base_url": url,
        "timeout_seconds": 1.0,
    }
    return PaymentSettings(_env_file=None, **(facts | changes))


def notice(trade_no: str = "TRADE1", **changes: str) -> dict[str, str]:
    """The fields of a notice that a trade of NT$ 1,299 was paid, signed."""
    return MERCHANT.sign(unsigned(trade_no, **changes))


def unsigned(trade_no: str = "TRADE1", **changes: str) -> dict[str, str]:
    return {
        "MerchantID": MERCHANT.id,
        "MerchantTradeNo": trade_no,
        "StoreID": "",
        "RtnCode": "1",
        "RtnMsg": "交易成功",
        "TradeNo": "2510010000000001",
        "TradeAmt": "1299",
        "PaymentDate": "2025/10/01 20:15:00",
        "PaymentType": "Credit_CreditCard",
        "PaymentTypeChargeFee": "5",
        "TradeDate": "2025/10/01 20:14:00",
        "SimulatePaid": "0",
        "CustomField1": "",
        "CustomField2": "",
        "CustomField3": "",
        "CustomField4": "",
    } | changes


def body(fields: dict[str, str]) -> bytes:
    return urlencode(fields).encode()


@dataclass
class FakeEcpay:
    """The fake, from the buyer's and the tester's side."""

    url: str
    http: httpx.Client = field(repr=False)

    def submit(self, form: Form | dict[str, Any]) -> httpx.Response:
        """The buyer's browser sends the form."""
        fields = form.fields if isinstance(form, Form) else form["fields"]
        return self.http.post("/Cashier/AioCheckOut/V5", data=fields)

    def press(self, trade_no: str, decision: str) -> None:
        """One of the page's two buttons."""
        answer = self.http.post(f"/_fake/page/{trade_no}", data={"decision": decision})
        assert answer.status_code == 200, answer.text

    def pay(self, trade_no: str, **what: bool) -> None:
        assert self.http.post(f"/_fake/trades/{trade_no}/pay", json=what).status_code == 200

    def lie(self, **lies: Any) -> None:
        assert self.http.put("/_fake/lies", json=lies).status_code == 200

    def release(self, order: str) -> None:
        self.http.post("/_fake/release", json={"order": order})

    def capture(self, trade_no: str) -> None:
        self.http.post(f"/_fake/trades/{trade_no}/capture")

    def trade(self, trade_no: str) -> dict[str, Any]:
        trades: list[dict[str, Any]] = self.http.get("/_fake/trades").json()
        return next(trade for trade in trades if trade["MerchantTradeNo"] == trade_no)

    @property
    def told(self) -> list[dict[str, Any]]:
        """Every attempt to tell, and what it heard."""
        found: list[dict[str, Any]] = self.http.get("/_fake/notices").json()
        return found


@contextmanager
def fake_ecpay(**options: Any) -> Iterator[FakeEcpay]:
    """Runs until the block ends; it tells again after half a second."""
    app = create_fake(MERCHANT, **{"again_seconds": 0.3, **options})
    with running(app) as url, httpx.Client(base_url=url, timeout=10) as http:
        yield FakeEcpay(url, http)
