"""The fake's trades, in memory, and how it is told to lie."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from control.gateways.ecpay.notice import TAIPEI, TIME
from control.gateways.ecpay.signature import signed

OPEN, PAID, FAILED, NO_SUCH = "0", "1", "10200095", "10200047"
_DECLINED: Final = "10100248"


class Lies(BaseModel):
    """What it does otherwise than ECPay would, until it is told something else."""

    model_config = ConfigDict(extra="forbid")

    drop: int = 0
    """So many attempts to tell get lost on the way."""
    delay_seconds: float = 0
    copies: int = 1
    """Each notice comes so many times, at the same time."""
    hold: bool = False
    """Notices wait until they are released, in an order of one's choice."""
    amount: int | None = None
    """TradeAmt of notices."""
    merchant: str | None = None
    """MerchantID of notices."""
    signature: bool = True
    """Whether that of notices is right."""
    query: Literal["", "error", "hang", "forged"] = ""
    """What becomes of questions."""
    refund: Literal["", "error", "refuse", "lose"] = ""
    """`lose`: it is done, and the answer never comes."""


@dataclass
class Trade:
    """One order at the gateway."""

    asked: dict[str, str]
    """The form it began with."""
    trade_no: str = field(default_factory=lambda: f"{datetime.now(TAIPEI):%y%m%d%H%M%S}{secrets.randbelow(10**8):08d}")
    status: str = OPEN
    at: str = field(default_factory=lambda: datetime.now(TAIPEI).strftime(TIME))
    paid_at: str = ""
    captured: bool = False
    given_back: bool = False

    @property
    def amount(self) -> int:
        return int(self.asked["TotalAmount"])

    def pay(self) -> None:
        self.status, self.paid_at = PAID, datetime.now(UTC).astimezone(TAIPEI).strftime(TIME)

    def decline(self) -> None:
        if self.status == OPEN:
            self.status = FAILED

    def notice(self, *, paid: bool, simulated: bool = False) -> dict[str, str]:
        """The fields of a notice, unsigned."""
        return {
            "MerchantID": self.asked["MerchantID"],
            "MerchantTradeNo": self.asked["MerchantTradeNo"],
            "StoreID": "",
            "RtnCode": "1" if paid else _DECLINED,
            "RtnMsg": "交易成功" if paid else "拒絕交易",
            "TradeNo": self.trade_no,
            "TradeAmt": self.asked["TotalAmount"],
            "PaymentDate": self.paid_at or datetime.now(TAIPEI).strftime(TIME),
            "PaymentType": "Credit_CreditCard",
            "PaymentTypeChargeFee": "5",
            "TradeDate": self.at,
            "SimulatePaid": "1" if simulated else "0",
            **{f"CustomField{n}": self.asked.get(f"CustomField{n}", "") for n in range(1, 5)},
        }

    def answer(self) -> dict[str, str]:
        """The fields of the answer to QueryTradeInfo, unsigned."""
        return {
            "MerchantID": self.asked["MerchantID"],
            "MerchantTradeNo": self.asked["MerchantTradeNo"],
            "StoreID": "",
            "TradeNo": self.trade_no,
            "TradeAmt": self.asked["TotalAmount"],
            "PaymentDate": self.paid_at,
            "PaymentType": "Credit_CreditCard" if self.paid_at else "",
            "HandlingCharge": "5" if self.paid_at else "0",
            "PaymentTypeChargeFee": "5" if self.paid_at else "0",
            "TradeDate": self.at,
            "TradeStatus": self.status,
            "ItemName": self.asked.get("ItemName", ""),
            **{f"CustomField{n}": self.asked.get(f"CustomField{n}", "") for n in range(1, 5)},
        }

    def act(self, action: str, amount: int) -> str | None:
        """DoAction; why not, where it is not done."""
        if self.status != PAID or self.given_back:
            return "error_nopay"
        if action == "N" and not self.captured:
            self.given_back = True
            return None
        if action == "R" and self.captured and amount == self.amount:
            self.given_back = True
            return None
        return "error_Stop"

    def shown(self) -> dict[str, Any]:
        return {**self.answer(), "captured": self.captured, "given_back": self.given_back}


def unknown(merchant: str, merchant_trade_no: str) -> dict[str, str]:
    """The answer of a trade it does not know, unsigned."""
    empty = dict.fromkeys(("StoreID", "TradeNo", "TradeAmt", "PaymentDate", "PaymentType", "TradeDate", "ItemName"), "")
    return {**empty, "MerchantID": merchant, "MerchantTradeNo": merchant_trade_no, "TradeStatus": NO_SUCH}


@dataclass
class Merchant:
    """Who the fake is ECPay for; by default the merchant ECPay gives everybody for trials."""

    id: str = "3002607"
    hash_key: str = "pwFHCqoQZGmho4w6"
    hash_iv: str = "EkRm7iFT261dpevs"

    def sign(self, fields: dict[str, str]) -> dict[str, str]:
        return signed(fields, self.hash_key, self.hash_iv)
