"""CheckMacValue: the signature on everything ECPay and a merchant tell each other. Pure.

The algorithm is ECPay's (its documentation, appendix "Checksum Mechanism"): over all fields in the order of their
names, in between the merchant's two keys, in .NET's percent-encoding.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote_plus

SIGNATURE: Final = "CheckMacValue"
# What .NET's UrlEncode leaves as it is; it escapes `~`, which Python never does.
_SAFE: Final = "-_.!*()"


def check_mac_value(fields: Mapping[str, str], hash_key: str, hash_iv: str) -> str:
    """64 upper-case hex digits. Empty fields count; the signature itself does not."""
    names = sorted((name for name in fields if name != SIGNATURE), key=str.lower)
    text = "&".join([f"HashKey={hash_key}", *(f"{name}={fields[name]}" for name in names), f"HashIV={hash_iv}"])
    encoded = quote_plus(text, safe=_SAFE).lower().replace("~", "%7e")
    return hashlib.sha256(encoded.encode()).hexdigest().upper()


def signed(fields: Mapping[str, str], hash_key: str, hash_iv: str) -> dict[str, str]:
    """The fields with their signature."""
    return {**fields, SIGNATURE: check_mac_value(fields, hash_key, hash_iv)}


def is_genuine(fields: Mapping[str, str], hash_key: str, hash_iv: str) -> bool:
    """Whether the signature is there and right; takes as long whichever it is."""
    offered = fields.get(SIGNATURE, "")
    return hmac.compare_digest(offered.encode(), check_mac_value(fields, hash_key, hash_iv).encode())
