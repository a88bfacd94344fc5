"""ECPay's notices of payment, and its answers to questions, which are of the same kind. Pure.

Fields: ECPay's documentation, "Payment Results Notification" (developers.ecpay.com.tw/?p=16538) and "Query Order".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Final
from urllib.parse import parse_qsl

from control.errors import NoticeForged, NoticeUnreadable
from control.gateways.base import Received, Standing, TradeReport
from control.gateways.ecpay.signature import SIGNATURE, is_genuine
from control.money import minor_units

CURRENCY: Final = "TWD"
TAIPEI: Final = timezone(timedelta(hours=8))
TIME: Final = "%Y/%m/%d %H:%M:%S"
_MOST_FIELDS: Final = 100
_PAID: Final = "1"
# A number to pay with at a cash machine or in a shop was given out: nothing is decided yet.
_NUMBER_TAKEN: Final = ("2", "10100073")
# TradeStatus, where it is not a code of a notice: not paid yet, no such trade.
_ASKED: Final[dict[str, Standing]] = {"0": "open", _PAID: "paid", "10200047": "unknown"}
_TRADE_NO: Final = re.compile(r"[0-9A-Za-z]{1,20}")
_NUMBER: Final = re.compile(r"[0-9]{1,12}")
# Whatever of it differs makes another notice. Not only what ECPay says tells them apart: a trade that was paid by way
# of trial first and by the buyer later has the same number and code both times.
_TELLS_APART: Final = (
    "MerchantID",
    "MerchantTradeNo",
    "TradeNo",
    "RtnCode",
    "TradeAmt",
    "SimulatePaid",
    "CustomField1",
)


def parse(body: bytes) -> dict[str, str]:
    """The fields of a form. Raises ValueError where it is none, or has one twice."""
    pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field comes twice")
    return fields


def receive(body: bytes, hash_key: str, hash_iv: str) -> Received:
    """A notice whose signature is right. Raises NoticeForged; NoticeUnreadable where it is ECPay's and no sense."""
    try:
        fields = parse(body)
    except ValueError:
        raise NoticeForged(reason="it is no form") from None
    if not is_genuine(fields, hash_key, hash_iv):
        raise NoticeForged(reason="its signature is missing or wrong")
    del fields[SIGNATURE]
    trade_no = _matching(_TRADE_NO, fields, "MerchantTradeNo")
    _matching(_NUMBER, fields, "RtnCode")
    _matching(_NUMBER, fields, "TradeAmt")
    if any("\x00" in value for value in fields.values()):
        raise NoticeUnreadable(reason="it has a NUL in it")
    told = "\n".join(["ecpay", *(fields.get(name, "") for name in _TELLS_APART)])
    return Received(f"ntc_{hashlib.sha256(told.encode()).hexdigest()[:40]}", trade_no, fields)


def report(fields: Mapping[str, str]) -> TradeReport:
    """What a notice says. Raises NoticeUnreadable."""
    code = _matching(_NUMBER, fields, "RtnCode")
    standing: Standing = "paid" if code == _PAID else "open" if code in _NUMBER_TAKEN else "failed"
    # Any word but 0 is taken for a trial: nothing is shipped by mistake.
    return _report(fields, standing, code, simulated=fields.get("SimulatePaid", "0") != "0", asked=False)


def answer(fields: Mapping[str, str]) -> TradeReport:
    """What the answer to QueryTradeInfo says. Raises NoticeUnreadable."""
    code = _matching(_NUMBER, fields, "TradeStatus")
    return _report(fields, _ASKED.get(code, "failed"), code, simulated=None, asked=True)


def _report(
    fields: Mapping[str, str], standing: Standing, code: str, *, simulated: bool | None, asked: bool
) -> TradeReport:
    # Of a trade it does not know it gives no amount.
    amount = fields.get("TradeAmt") if standing == "unknown" else _matching(_NUMBER, fields, "TradeAmt")
    return TradeReport(
        gateway="ecpay",
        merchant_id=fields.get("MerchantID", ""),
        trade_no=_matching(_TRADE_NO, fields, "MerchantTradeNo"),
        gateway_trade_no=fields.get("TradeNo", "")[:20],
        standing=standing,
        code=code,
        amount_minor=minor_units(int(amount or 0), CURRENCY),
        currency=CURRENCY,
        simulated=simulated,
        method=fields.get("PaymentType", "")[:32],
        paid_at=_time(fields.get("PaymentDate", "")),
        payment_id=fields.get("CustomField1", ""),
        asked=asked,
    )


def _matching(pattern: re.Pattern[str], fields: Mapping[str, str], name: str) -> str:
    value = fields.get(name, "")
    if not pattern.fullmatch(value):
        raise NoticeUnreadable(reason=f"{name} is missing or of another kind")
    return value


def _time(text: str) -> datetime | None:
    """ECPay's clock is Taipei's; there is no summer time."""
    try:
        return datetime.strptime(text, TIME).replace(tzinfo=TAIPEI).astimezone(UTC)
    except ValueError:
        return None
