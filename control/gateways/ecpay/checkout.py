"""The form a buyer is sent to ECPay with. Pure.

Fields: ECPay's documentation, "Create Order" (AioCheckOut/V5).
"""

from __future__ import annotations

from typing import Final

from control.errors import AmountInvalid
from control.gateways.base import Checkout
from control.gateways.ecpay.notice import CURRENCY, TAIPEI, TIME
from control.gateways.ecpay.signature import signed
from control.money import whole_units

_LONGEST_NAMES: Final = 200
# Of a name what neither its form nor its firewall takes amiss.
_KEPT: Final = " -_.()"


def amount(amount_minor: int, currency: str) -> int:
    """In whole TWD, all that ECPay takes. Raises AmountInvalid."""
    if currency != CURRENCY:
        raise AmountInvalid(amount_minor=amount_minor, currency=currency, reason="ECPay takes TWD alone")
    units = whole_units(amount_minor, currency)
    if units <= 0:
        raise AmountInvalid(amount_minor=amount_minor, currency=currency, reason="there is nothing to pay")
    return units


def fields(
    wanted: Checkout,
    *,
    merchant_id: str,
    hash_key: str,
    hash_iv: str,
    methods: str,
    back_url: str | None,
) -> dict[str, str]:
    """The form's fields, signed. Raises AmountInvalid."""
    made = {
        "MerchantID": merchant_id,
        "MerchantTradeNo": wanted.trade_no,
        "MerchantTradeDate": wanted.at.astimezone(TAIPEI).strftime(TIME),
        "PaymentType": "aio",
        "TotalAmount": str(amount(wanted.amount_minor, wanted.currency)),
        "TradeDesc": f"Order {wanted.order_id}",
        "ItemName": _names(wanted.items) or f"Order {wanted.order_id}",
        "ReturnURL": wanted.notice_url,
        "ChoosePayment": methods,
        "EncryptType": "1",
        "CustomField1": wanted.payment_id,
    }
    if back_url:
        made["ClientBackURL"] = back_url
    if not wanted.locale.startswith("zh"):
        made["Language"] = "ENG"
    return signed(made, hash_key, hash_iv)


def _names(items: tuple[str, ...]) -> str:
    """`first#second`, cut where ECPay would cut in the midst of a character and then find the signature wrong."""
    clean = (" ".join("".join(one if one.isalnum() or one in _KEPT else " " for one in item).split()) for item in items)
    return "#".join(name for name in clean if name)[:_LONGEST_NAMES]
