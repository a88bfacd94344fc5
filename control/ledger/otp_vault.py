"""What hides one-time passwords: keyed hashes of what is compared, seals on what has to be read again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import secrets
from functools import lru_cache
from typing import Final

from pydantic import SecretStr

from control.errors import ConfigurationError

SHORTEST_SECRET_BYTES: Final = 16
_SETTING: Final = "AFTERLIVE_OTP_SECRET"
_IPV6_NETWORK_BITS: Final = 64


class Vault:
    """Keys derived from one secret, each for one use.

    A code has a million values, so no hash of it alone hides it, however slow: whoever has the ledger would try them
    all. It is the key, which is not in the ledger, that does.
    """

    def __init__(self, secret: bytes) -> None:
        from cryptography.fernet import Fernet  # a command that sees no code need not load it

        self._secret = secret
        self._codes, self._phones, self._addresses = (self._key(use) for use in ("codes", "phones", "addresses"))
        self._seal = Fernet(base64.urlsafe_b64encode(self._key("seals")))

    def code_hash(self, otp_id: str, code: str) -> str:
        """With its id, or two that are the same by chance would show it."""
        return _hash(self._codes, f"{otp_id}:{code}")

    def phone_hash(self, phone: str) -> str:
        return _hash(self._phones, phone)

    def ip_hash(self, ip: str) -> str:
        """Of IPv6 the network's, as one household has 2⁶⁴ addresses."""
        address = ipaddress.ip_address(ip)
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        if isinstance(address, ipaddress.IPv6Address):
            return _hash(self._addresses, str(ipaddress.IPv6Network((int(address), _IPV6_NETWORK_BITS), strict=False)))
        return _hash(self._addresses, str(address))

    def seal(self, otp_id: str, text: str) -> str:
        return self._seal.encrypt(f"{otp_id}:{text}".encode()).decode()

    def open(self, otp_id: str, sealed: str) -> str:
        """What was sealed for this one; another's is not opened. Raises ConfigurationError where the secret is not the
        one it was sealed with."""
        from cryptography.fernet import InvalidToken

        try:
            whose, _, text = self._seal.decrypt(sealed.encode()).decode().partition(":")
        except InvalidToken:
            reason = "it is not the one this was sealed with; the API and the workers have the same"
            raise ConfigurationError(setting=_SETTING, reason=reason) from None
        if whose != otp_id:
            raise ConfigurationError(setting=_SETTING, reason="this was sealed for another one-time password")
        return text

    def _key(self, use: str) -> bytes:
        return hmac.digest(self._secret, f"afterlive otp {use}".encode(), hashlib.sha256)


def vault_of(secret: SecretStr | None) -> Vault | None:
    """None without a secret. Raises ConfigurationError where it is too short to be one."""
    value = secret.get_secret_value().encode() if secret else b""
    if not value:
        return None
    if len(value) < SHORTEST_SECRET_BYTES:
        raise ConfigurationError(setting=_SETTING, reason=f"it must have at least {SHORTEST_SECRET_BYTES} bytes")
    return _vault(value)


def need_vault(secret: SecretStr | None) -> Vault:
    """As `vault_of`; raises ConfigurationError without a secret too."""
    found = vault_of(secret)
    if found is None:
        raise ConfigurationError(setting=_SETTING, reason="it is not set, and the API's and the workers' are the same")
    return found


def new_code(digits: int) -> str:
    """So many decimal digits, from the system's generator for secrets."""
    return f"{secrets.randbelow(10**digits):0{digits}d}"


@lru_cache(maxsize=4)
def _vault(secret: bytes) -> Vault:
    return Vault(secret)


def _hash(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()
