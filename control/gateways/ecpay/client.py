"""ECPay over HTTPS: how a trade stands, and giving money back."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import httpx

from control import telemetry
from control.errors import ConfigurationError, GatewayRefused, GatewayUnavailable, NoticeUnreadable
from control.gateways.base import Checkout, Form, Received, Refund, TradeReport
from control.gateways.ecpay import checkout, notice
from control.gateways.ecpay.signature import SIGNATURE, is_genuine, signed
from control.settings import PaymentSettings

STAGING_KEY: Final = "pwFHCqoQZGmho4w6"
"""ECPay's own, for everybody to try with: whoever signs with it is nobody in particular."""
_PRODUCTION: Final = "payment.ecpay.com.tw"
_CHECKOUT: Final = "/Cashier/AioCheckOut/V5"
_QUERY: Final = "/Cashier/QueryTradeInfo/V5"
_ACTION: Final = "/CreditDetail/DoAction"
# N gives up what is authorised and not captured, R gives back what is captured (developers.ecpay.com.tw/?p=16567);
# which of the two it is, is for it to say. Not E: on a payment that was given back already it would undo that.
_GIVE_BACK: Final = ("N", "R")
_DONE: Final = "1"
_LONGEST: Final = 100


class Ecpay:
    """One merchant at ECPay. Raises ConfigurationError."""

    name: Final = "ecpay"
    accepted: Final = b"1|OK"

    def __init__(self, settings: PaymentSettings) -> None:
        for name in ("merchant_id", "hash_key", "hash_iv"):
            if not getattr(settings, name):
                raise ConfigurationError(setting=f"AFTERLIVE_PAYMENT_{name.upper()}", reason="ECPay needs it")
        assert settings.merchant_id and settings.hash_key and settings.hash_iv  # noqa: S101, PT018  (narrows the types)
        self.merchant_id = settings.merchant_id
        self._key, self._iv = settings.hash_key, settings.hash_iv
        self._settings = settings
        self._base = settings.base_url.rstrip("/")
        if urlsplit(self._base).hostname == _PRODUCTION and self._key.get_secret_value() == STAGING_KEY:
            raise ConfigurationError(
                setting="AFTERLIVE_PAYMENT_HASH_KEY", reason="everybody knows ECPay's key for tests"
            )

    def check(self, amount_minor: int, currency: str) -> None:
        checkout.amount(amount_minor, currency)

    def checkout(self, wanted: Checkout) -> Form:
        fields = checkout.fields(
            wanted,
            merchant_id=self.merchant_id,
            hash_key=self._key.get_secret_value(),
            hash_iv=self._iv.get_secret_value(),
            methods=self._settings.methods,
            back_url=self._settings.back_url,
        )
        return Form(self._base + _CHECKOUT, "POST", fields)

    def receive(self, body: bytes) -> Received:
        return notice.receive(body, self._key.get_secret_value(), self._iv.get_secret_value())

    def query(self, trade_no: str) -> TradeReport:
        asked = {"MerchantTradeNo": trade_no, "TimeStamp": str(int(time.time()))}
        told = self._call(_QUERY, asked, must_sign=True)
        if told.get("MerchantTradeNo") != trade_no:
            raise GatewayUnavailable(reason="its answer is about another trade")
        try:
            return notice.answer(told)
        except NoticeUnreadable as error:
            raise GatewayUnavailable(reason=error.facts["reason"]) from None

    def refund(self, wanted: Refund) -> None:
        if wanted.method and not wanted.method.startswith(("Credit", "Flexible", "ApplePay")):
            raise GatewayRefused(reason=f"ECPay gives back payments by card alone, not {wanted.method}")
        asked = {
            "MerchantTradeNo": wanted.trade_no,
            "TradeNo": wanted.gateway_trade_no,
            "TotalAmount": str(checkout.amount(wanted.amount_minor, wanted.currency)),
        }
        refusals = []
        for action in _GIVE_BACK:
            # Its answers to this one are not signed; it is TLS that says whose they are.
            told = self._call(_ACTION, {**asked, "Action": action}, must_sign=False)
            if told.get("MerchantTradeNo") != wanted.trade_no or "RtnCode" not in told:
                raise GatewayUnavailable(reason="its answer is about something else")
            if told["RtnCode"] == _DONE:
                return
            refusals.append(f"{action}: {told['RtnCode']} {told.get('RtnMsg', '')}"[:_LONGEST])
        raise GatewayRefused(reason="; ".join(refusals))

    def _call(self, path: str, fields: dict[str, str], *, must_sign: bool) -> dict[str, str]:
        started = time.perf_counter()
        result = "unanswered"
        try:
            told = self._told(path, fields, must_sign)
            result = "answered"
        finally:
            seconds = time.perf_counter() - started
            telemetry.GATEWAY_SECONDS.labels(path.split("/")[2], result).observe(seconds)
        return told

    def _told(self, path: str, fields: dict[str, str], must_sign: bool) -> dict[str, str]:
        key, iv = self._key.get_secret_value(), self._iv.get_secret_value()
        body = signed({"MerchantID": self.merchant_id, **fields}, key, iv)
        try:
            answer = _http(self._settings.timeout_seconds).post(self._base + path, data=body)
        except httpx.HTTPError as error:
            raise GatewayUnavailable(reason=type(error).__name__) from None
        # 403 as well: so it answers who asks too often.
        if answer.status_code != httpx.codes.OK:
            raise GatewayUnavailable(reason=f"it answered {answer.status_code}")
        try:
            told = notice.parse(answer.content.strip())
        except ValueError:
            raise GatewayUnavailable(reason="its answer is no form") from None
        if (must_sign or SIGNATURE in told) and not is_genuine(told, key, iv):
            raise GatewayUnavailable(reason="its answer is not signed by it")
        if told.get("MerchantID") != self.merchant_id:
            raise GatewayUnavailable(reason="its answer is for another merchant")
        return told


@lru_cache(maxsize=4)
def _http(timeout_seconds: float) -> httpx.Client:
    """One for all: most of what a question costs is to get through to the gateway."""
    return httpx.Client(timeout=timeout_seconds)
