"""Amounts of money are whole numbers of a currency's minor unit; this is where they become anything else.

How many decimals a currency has is ISO 4217's (six-group.com, data standards, list one): two, but for
these.
"""

from __future__ import annotations

import re
from typing import Final

from control.errors import AmountInvalid

_DECIMALS: Final = {
    **dict.fromkeys(
        "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(),  # noqa: SIM905  (a table)
        0,
    ),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),  # noqa: SIM905
    **dict.fromkeys("CLF UYW".split(), 4),  # noqa: SIM905
}
_CODE: Final = re.compile(r"[A-Z]{3}")


def decimals(currency: str) -> int:
    """Of an ISO 4217 code, as TWD: 2. Raises AmountInvalid where it is no such code."""
    if not _CODE.fullmatch(currency):
        raise AmountInvalid(amount_minor="of", currency=currency[:8], reason="this is no currency's code")
    return _DECIMALS.get(currency, 2)


def whole_units(amount_minor: int, currency: str) -> int:
    """12300 minor units of TWD are 123. Raises AmountInvalid where a fraction would be lost."""
    units, rest = divmod(amount_minor, _minor_a_unit(currency))
    if rest:
        raise AmountInvalid(amount_minor=amount_minor, currency=currency, reason="it is not in whole units")
    return units


def minor_units(units: int, currency: str) -> int:
    """123 whole units of TWD are 12300."""
    return units * _minor_a_unit(currency)


def _minor_a_unit(currency: str) -> int:
    return int(10 ** decimals(currency))
