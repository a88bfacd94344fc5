"""Who can send a text message."""

from __future__ import annotations

from typing import Protocol


class SmsSender(Protocol):
    """One provider. Its errors hold nothing of the message or the number."""

    name: str
    """As metrics and the ledger show it: no account, no token."""

    def send(self, to: str, text: str, key: str) -> str:
        """What the provider calls the message. `to` is in E.164; `key` is the same each time the same message is sent.

        Raises SenderUnavailable where trying again can help, ProviderRefused where another provider can, SenderRefused
        where neither can.
        """
