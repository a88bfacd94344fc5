"""What a payment gateway is to us: a form the buyer is sent on with, notices that come in, questions and refunds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

Standing = Literal["paid", "failed", "open", "unknown"]
"""`open`: the buyer may still pay; `unknown`: the gateway has never heard of the trade."""


@dataclass(frozen=True)
class Checkout:
    """A payment that is to be made."""

    payment_id: str
    trade_no: str
    """Ours, unique at the gateway."""
    order_id: str
    amount_minor: int
    currency: str
    items: tuple[str, ...]
    """What is paid for, a line each."""
    locale: str
    at: datetime
    notice_url: str
    """Where the gateway is to tell how it ended."""


@dataclass(frozen=True)
class Form:
    """What the buyer's browser has to submit."""

    action: str
    method: str
    fields: dict[str, str]


@dataclass(frozen=True)
class Received:
    """A notice whose signature is right, as it is kept."""

    id: str
    """The same for each copy of a notice, another for any that says something else."""
    trade_no: str
    fields: dict[str, str]
    """As they came, without the signature."""


@dataclass(frozen=True)
class TradeReport:
    """What the gateway says of a trade, by itself or asked."""

    gateway: str
    merchant_id: str
    trade_no: str
    gateway_trade_no: str
    """The gateway's own number of it; empty where it has none."""
    standing: Standing
    code: str
    """The gateway's own word for the standing."""
    amount_minor: int
    currency: str
    simulated: bool | None
    """Paid by a test of the merchant's, not by a buyer; None where the gateway does not say."""
    method: str
    paid_at: datetime | None
    payment_id: str
    """As we gave it along; empty where the gateway does not say."""
    asked: bool = False
    """It is the answer to a question of ours."""


@dataclass(frozen=True)
class Refund:
    """All of a payment is to be given back."""

    trade_no: str
    gateway_trade_no: str
    amount_minor: int
    currency: str
    method: str


class PaymentGateway(Protocol):
    """One gateway, as one merchant. Safe to share between threads.

    `checkout` and `receive` touch no network. What does raises GatewayUnavailable where trying again can help (it may
    have been done all the same) and GatewayRefused where it cannot.
    """

    @property
    def name(self) -> str: ...

    @property
    def merchant_id(self) -> str: ...

    @property
    def accepted(self) -> bytes:
        """What it wants to hear once a notice is stored; anything else, and it comes again."""
        ...

    def check(self, amount_minor: int, currency: str) -> None:
        """Raises AmountInvalid where it cannot charge that."""
        ...

    def checkout(self, wanted: Checkout) -> Form:
        """Raises AmountInvalid."""
        ...

    def receive(self, body: bytes) -> Received:
        """A notice as it came in. Raises NoticeForged, NoticeUnreadable."""
        ...

    def query(self, trade_no: str) -> TradeReport:
        """How a trade stands."""
        ...

    def refund(self, wanted: Refund) -> None:
        """Give the money back."""
        ...
