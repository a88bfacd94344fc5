"""The demo's shopping: during the live somebody orders, pays at a gateway of the demo's own, and the order is
confirmed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
from pydantic import SecretStr

from control.fake_ecpay.app import create_fake
from control.fake_ecpay.server import running
from control.fake_ecpay.trades import Merchant
from control.settings import PaymentSettings

_PRICE_MINOR: Final = 129900
_PATIENCE_SECONDS: Final = 15.0
Call = Callable[..., dict[str, Any]]
"""(client, method, path, body) → the answer's document."""


@contextmanager
def gateway() -> Iterator[PaymentSettings]:
    """A gateway where no money moves, and the settings to use it, until the block ends."""
    merchant = Merchant()
    with running(create_fake(merchant)) as url:
        yield PaymentSettings(
            gateway="ecpay",
            merchant_id=merchant.id,
            hash_key=SecretStr(merchant.hash_key),
            hash_iv=SecretStr(merchant.hash_iv),
            base_url=url,
            return_url=None,
            back_url=None,
        )


def buy(client: httpx.Client, call: Call, say: Callable[[str, str], None], stream_id: str) -> None:
    """Order, pay, be confirmed. Raises TimeoutError."""
    product = call(
        client,
        "POST",
        "/products",
        {"seller_id": "seller-42", "name": "Tea bowl", "price_minor": _PRICE_MINOR, "stock": 3, "stream_id": stream_id},
    )
    wanted = {"buyer_id": "buyer-7", "locale": "en", "lines": [{"product_id": product["id"], "quantity": 1}]}
    client.headers["Idempotency-Key"] = str(uuid.uuid4())
    order = call(client, "POST", "/orders", wanted)
    del client.headers["Idempotency-Key"]
    _wait(client, call, order["id"], "reserved")
    opened = call(client, "POST", f"/orders/{order['id']}/payments")
    say("an order", f"{order['id']}, NT$ {_PRICE_MINOR // 100:,}; the buyer goes to the gateway")
    form = opened["form"]
    httpx.post(form["action"], data=form["fields"]).raise_for_status()
    number = opened["payment"]["trade_no"]
    started = time.monotonic()
    httpx.post(f"{form['action'].partition('/Cashier')[0]}/_fake/trades/{number}/pay", json={}).raise_for_status()
    _wait(client, call, order["id"], "confirmed")
    say("paid and confirmed", f"{time.monotonic() - started:.2f} s after the buyer paid")


def _wait(client: httpx.Client, call: Call, order_id: str, state: str) -> None:
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while (found := call(client, "GET", f"/orders/{order_id}")["state"]) != state:
        if time.monotonic() > give_up:
            raise TimeoutError(f"the order {order_id} is {found}, not {state}")
        time.sleep(0.02)
