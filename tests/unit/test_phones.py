"""Phone numbers: what is one, and what is shown of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.errors import PhoneInvalid
from control.phones import masked, normalise


@pytest.mark.parametrize(
    ("text", "region", "expected"),
    [
        ("0912 345 678", "TW", "+886912345678"),
        ("0912-345-678", "tw", "+886912345678"),
        ("+886 912 345 678", None, "+886912345678"),
        ("+886 (0)912345678", "US", "+886912345678"),
        ("００９１２３４５６７８"[1:], "TW", "+886912345678"),  # full-width digits
        ("+44 7400 123456", "TW", "+447400123456"),
        ("(201) 555-0123", "US", "+12015550123"),  # fixed line or mobile: nobody can tell there
    ],
)
def test_a_number_however_it_is_written_is_one(text: str, region: str | None, expected: str) -> None:
    assert normalise(text, region) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(
    ("text", "region", "why"),
    [
        ("02 2720 8889", "TW", "not a mobile"),
        ("+1 800 555 0199", None, "not a mobile"),
        ("0912345678", None, "country code"),
        ("+999 912345678", None, "country code"),
        ("0912345678", "XX", "no such region"),
        ("0912 345", "TW", "no such number"),
        ("0912345678;ext=5", "TW", "not a number"),
        ("1-800-FLOWERS", "US", "not a number"),
        ("", "TW", "not a number"),
        ("9" * 300, "TW", "not a number"),
        ("tel:0912345678", "TW", "not a number"),
    ],
)
def test_what_gets_no_text_messages_is_refused_and_not_repeated(text: str, region: str | None, why: str) -> None:
    with pytest.raises(PhoneInvalid, match=why) as caught:
        normalise(text, region)
    assert not text or text not in str(caught.value)
    assert text not in str(caught.value.facts) or not text


@given(text=st.text(max_size=50), region=st.sampled_from([None, "TW", "US", "", "x"]))
def test_whatever_comes_is_a_number_or_refused(text: str, region: str | None) -> None:
    try:
        found = normalise(text, region)
    except PhoneInvalid:
        return
    assert found.startswith("+")
    assert found[1:].isascii()
    assert found[1:].isdigit()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("+886912345678", "+8869•••••678"),
        ("+12015550123", "+120•••••123"),
        ("+29052345", "+•••••345"),
        ("+2905234", "••••••••"),
        ("", ""),
    ],
)
def test_a_masked_number_hides_five_digits_at_least(number: str, expected: str) -> None:
    assert masked(number) == expected
