"""The demo's shopping: during the live somebody logs in with a code by text message, orders, pays at a gateway of the
demo's own, and gets mails and a text message. They are files of the demo's folder, not sent to anybody."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import policy
from email.parser import BytesParser
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import SecretStr

from control.fake_ecpay.app import create_fake
from control.fake_ecpay.server import running
from control.fake_ecpay.trades import Merchant
from control.settings import NotifySettings, PaymentSettings

_PRICE_MINOR: Final = 129900
_PATIENCE_SECONDS: Final = 15.0
_PHONE: Final = "+886912345678"
_MAIL: Final = "buyer@example.com"
_MAILS: Final = 2
OUTBOX: Final = "outbox"
"""Where in the demo's folder mails and text messages are."""
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


def notices(base: NotifySettings, outbox: Path) -> NotifySettings:
    """Mails and text messages as files."""
    ways = {"mail_url": SecretStr(f"outbox:{outbox}"), "sms_urls": [SecretStr(f"console:{outbox}")]}
    return base.model_copy(update=ways)


def buy(client: httpx.Client, call: Call, say: Callable[[str, str], None], stream_id: str, outbox: Path) -> None:
    """Log in, order, pay, be confirmed, be told. Raises TimeoutError."""
    _log_in(client, call, say, outbox)
    product = call(
        client,
        "POST",
        "/products",
        {"seller_id": "seller-42", "name": "Tea bowl", "price_minor": _PRICE_MINOR, "stock": 3, "stream_id": stream_id},
    )
    wanted = {
        "buyer_id": "buyer-7",
        "buyer_email": _MAIL,
        "buyer_phone": _PHONE,
        "locale": "en",
        "lines": [{"product_id": product["id"], "quantity": 1}],
    }
    client.headers["Idempotency-Key"] = str(uuid.uuid4())
    order = call(client, "POST", "/orders", wanted)
    del client.headers["Idempotency-Key"]
    _state(client, call, order["id"], "reserved")
    opened = call(client, "POST", f"/orders/{order['id']}/payments")
    say("an order", f"{order['id']}, NT$ {_PRICE_MINOR // 100:,}; the buyer goes to the gateway")
    form = opened["form"]
    httpx.post(form["action"], data=form["fields"]).raise_for_status()
    number = opened["payment"]["trade_no"]
    started = time.monotonic()
    httpx.post(f"{form['action'].partition('/Cashier')[0]}/_fake/trades/{number}/pay", json={}).raise_for_status()
    _state(client, call, order["id"], "confirmed")
    say("paid and confirmed", f"{time.monotonic() - started:.2f} s after the buyer paid")
    _until(lambda: len(_mails(outbox)) >= _MAILS and "confirmed" in _texts(outbox), "the buyer is told")
    for subject in _mails(outbox):
        say("a mail to the buyer", subject)
    say("a text message", _texts(outbox).splitlines()[-1].partition(_PHONE)[2].strip())


def _log_in(client: httpx.Client, call: Call, say: Callable[[str, str], None], outbox: Path) -> None:
    started = time.monotonic()
    asked = call(client, "POST", "/otp", {"phone": _PHONE, "purpose": "login", "locale": "en"})
    _until(lambda: _PHONE in _texts(outbox), "the code is sent")
    code = re.search(r"\b\d{6}\b", _texts(outbox).partition(_PHONE)[2])
    call(client, "POST", "/otp/verify", {"otp_id": asked["otp_id"], "code": code[0] if code else "0"})
    say("the buyer logged in", f"with a code by text message, {time.monotonic() - started:.2f} s")


def _texts(outbox: Path) -> str:
    path = outbox / "sms.txt"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _mails(outbox: Path) -> list[str]:
    """Their subjects."""
    found = []
    for path in sorted(outbox.glob("*.eml")):
        with path.open("rb") as file:
            found.append(str(BytesParser(policy=policy.default).parse(file, headersonly=True)["Subject"]))
    return found


def _state(client: httpx.Client, call: Call, order_id: str, state: str) -> None:
    _until(lambda: call(client, "GET", f"/orders/{order_id}")["state"] == state, f"the order is {state}")


def _until(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"not within {_PATIENCE_SECONDS:.0f} s: {what}")
        time.sleep(0.02)
