"""Payment gateways, one behind each name; which one, the settings say.

What only reads notices that were stored needs no key, and loads no HTTP client.
"""

from __future__ import annotations

from collections.abc import Mapping

from control.errors import ConfigurationError, PaymentsOff
from control.gateways.base import PaymentGateway, TradeReport
from control.gateways.ecpay import notice
from control.settings import Settings

__all__ = ["PaymentGateway", "TradeReport", "gateway", "read_notice"]

NOTICES = "/webhooks/payment/"
"""Under which path of the API notices come in: the gateway's name follows."""


def gateway(settings: Settings) -> PaymentGateway:
    """The gateway of the settings. Raises PaymentsOff where none is set up, ConfigurationError where one is by half."""
    chosen = settings.payment
    if chosen.gateway != "ecpay":
        raise ConfigurationError(setting="AFTERLIVE_PAYMENT_GATEWAY", reason="there is only ecpay")
    if chosen.merchant_id is None and chosen.hash_key is None and chosen.hash_iv is None:
        raise PaymentsOff(reason="AFTERLIVE_PAYMENT_MERCHANT_ID and its keys are not set")
    from control.gateways.ecpay.client import Ecpay

    return Ecpay(chosen)


def read_notice(name: str, fields: Mapping[str, str]) -> TradeReport:
    """A notice that was stored. Raises NoticeUnreadable."""
    return {"ecpay": notice.report}[name](fields)
