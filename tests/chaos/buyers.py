"""Buyers who order, pay, forget or think better of it, and a gateway that tells of their payments out of order, more
than once, and until it is heard: while things break."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

import httpx

from control.errors import IdempotencyKeyInUse
from control.fake_ecpay.trades import PAID
from control.gateways import NOTICES
from tests.ecpay import MERCHANT, FakeEcpay, body, unsigned

_AT_ONCE: Final = 12
_TELLERS: Final = 3
_HELD_BACK: Final = 15
"""Notices that are always kept waiting, so that they are told in another order than they came."""
_PATIENCE_SECONDS: Final = 120.0


class Buyers:
    """`number` of them, each an order; by `number % 10` some never pay, and some cancel what they have paid."""

    def __init__(self, client: httpx.Client, ecpay: FakeEcpay, products: Sequence[str], number: int) -> None:
        self.placed: dict[int, str] = {}
        """By buyer, the id of the order."""
        self.paid: dict[str, str] = {}
        """By payment that a buyer made at the gateway, the order. Their notices were all heard, in the end."""
        self.copies = 0
        self._client = client
        self._ecpay = ecpay
        self._products = products
        self._number = number
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()
        self._all_paid = threading.Event()

    @contextmanager
    def buying(self) -> Iterator[None]:
        """From now on; the block ends once all have, and the gateway has told all."""
        with ThreadPoolExecutor(_AT_ONCE + _TELLERS) as pool:
            told = [pool.submit(self._tell) for _ in range(_TELLERS)]
            bought = [pool.submit(self._buy, number) for number in range(self._number)]
            try:
                yield
                for future in bought:
                    future.result()
            finally:
                for future in bought:
                    future.cancel()
                self._all_paid.set()
            for future in told:
                future.result()

    def _buy(self, number: int) -> None:
        chance = random.Random(number)
        wanted = {
            "buyer_id": f"buyer-{number}", "buyer_email": f"buyer-{number}@example.com", "locale": "en",
            "lines": [{"product_id": self._products[number % len(self._products)], "quantity": chance.randint(1, 3)}],
        }  # fmt: skip
        order = self._answer("POST", "/orders", wanted, **{"Idempotency-Key": f"order-{number}"}).json()
        self.placed[number] = order["id"]
        state = order["state"]
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while state == "placed":
            assert time.monotonic() < give_up, f"nothing becomes of {order['id']}"
            time.sleep(0.2)
            state = self._answer("GET", f"/orders/{order['id']}").json()["state"]
        if state == "sold_out" or number % 10 == 3:
            return
        opened = self._answer("POST", f"/orders/{order['id']}/payments", {})
        if opened.status_code == httpx.codes.CONFLICT:
            return  # their time was over before they came to it
        self._pay(opened.json(), order, copies=chance.randint(1, 3), cancels=number % 10 == 7)

    def _pay(self, opened: dict[str, Any], order: dict[str, Any], *, copies: int, cancels: bool) -> None:
        payment = opened["payment"]
        self._ecpay.submit(opened["form"]).raise_for_status()
        trade = self._ecpay.http.post(f"/_fake/trades/{payment['trade_no']}/pay", json={}).raise_for_status().json()
        assert trade["TradeStatus"] == PAID
        self.paid[payment["id"]] = order["id"]
        if cancels:
            self._answer("POST", f"/orders/{order['id']}/cancel")
        fields = unsigned(
            payment["trade_no"], TradeNo=trade["TradeNo"], TradeAmt=trade["TradeAmt"], CustomField1=payment["id"]
        )
        with self._lock:
            self._waiting += [body(MERCHANT.sign(fields))] * copies
            self.copies += copies

    def _tell(self) -> None:
        while not (self._all_paid.is_set() and not self._waiting):
            with self._lock:
                enough = len(self._waiting) > (0 if self._all_paid.is_set() else _HELD_BACK)
                told = self._waiting.pop(random.randrange(len(self._waiting))) if enough else None
            if told is None:
                time.sleep(0.02)
            elif not self._heard(told):
                with self._lock:
                    self._waiting.append(told)
                time.sleep(0.1)

    def _heard(self, told: bytes) -> bool:
        try:
            return self._client.post(f"{NOTICES}ecpay", content=told).text == "1|OK"
        except httpx.HTTPError:
            return False

    def _answer(self, method: str, path: str, facts: Any = None, **headers: str) -> httpx.Response:
        """Ask until there is an answer: as often as it takes, as what is asked here may be asked twice."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        for pause in chain((0.05, 0.1), iter(lambda: 0.3, None)):
            try:
                answer = self._client.request(method, path, json=facts, headers=headers)
            except httpx.HTTPError:
                pass  # nobody there
            else:
                refused = answer.json().get("code")
                if answer.is_success or refused == "conflict":
                    return answer
                assert refused == IdempotencyKeyInUse.code or answer.is_server_error, (path, answer.text)
            assert time.monotonic() < give_up, f"no answer: {method} {path}"
            time.sleep(pause)
        raise AssertionError
