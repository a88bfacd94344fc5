"""Payment notices as ECPay sends them, signed, each another one; and what both sides are set up with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlencode

from control.gateways.ecpay.signature import signed
from tests.benchmarks.bus.clients import Request, form_post

MERCHANT: Final = "3002607"
HASH_KEY: Final = "benchHashKey0001"
HASH_IV: Final = "benchHashIV00001"
"""Any: both sides are set up with them."""
PATH: Final = "/webhooks/payment/ecpay"
SETTINGS: Final = {
    "AFTERLIVE_PAYMENT_MERCHANT_ID": MERCHANT,
    "AFTERLIVE_PAYMENT_HASH_KEY": HASH_KEY,
    "AFTERLIVE_PAYMENT_HASH_IV": HASH_IV,
}


def fields(trade_no: str, amount: int = 300, payment_id: str = "") -> dict[str, str]:
    """A payment that succeeded."""
    return signed(
        {
            "MerchantID": MERCHANT, "MerchantTradeNo": trade_no, "StoreID": "", "RtnCode": "1", "RtnMsg": "Succeeded",
            "TradeNo": f"26112400{trade_no[-8:]}", "TradeAmt": str(amount), "PaymentDate": "2026/11/24 20:15:30",
            "PaymentType": "Credit_CreditCard", "PaymentTypeChargeFee": "6", "TradeDate": "2026/11/24 20:15:02",
            "SimulatePaid": "0", "CustomField1": payment_id, "CustomField2": "", "CustomField3": "",
            "CustomField4": "",
        },
        HASH_KEY, HASH_IV,
    )  # fmt: skip


def requests(number: int) -> Iterator[Request]:
    """So many, made beforehand, each handed out once."""
    made = []
    for position in range(number):
        trade_no = f"BENCH{position:010d}"
        made.append((trade_no, form_post(PATH, urlencode(fields(trade_no)).encode())))
    return iter(made)
