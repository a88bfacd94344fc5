"""Minor units and whole ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.errors import AmountInvalid
from control.money import decimals, minor_units, whole_units


@pytest.mark.parametrize(
    ("currency", "amount_minor", "units"), [("TWD", 129900, 1299), ("JPY", 500, 500), ("KWD", 12000, 12), ("TWD", 0, 0)]
)
def test_whole_units(currency: str, amount_minor: int, units: int) -> None:
    assert whole_units(amount_minor, currency) == units
    assert minor_units(units, currency) == amount_minor


@pytest.mark.parametrize(("currency", "amount_minor"), [("TWD", 129950), ("TWD", 1), ("KWD", 12100)])
def test_a_fraction_is_refused_not_rounded(currency: str, amount_minor: int) -> None:
    with pytest.raises(AmountInvalid, match="whole units"):
        whole_units(amount_minor, currency)


@pytest.mark.parametrize("currency", ["twd", "NT$", "", "TWDX", "TW\n"])
def test_what_is_no_currency_is_refused(currency: str) -> None:
    with pytest.raises(AmountInvalid, match="no currency"):
        decimals(currency)


@given(units=st.integers(0, 10**12), currency=st.sampled_from(["TWD", "JPY", "KWD", "CLF"]))
def test_there_and_back(units: int, currency: str) -> None:
    assert whole_units(minor_units(units, currency), currency) == units
