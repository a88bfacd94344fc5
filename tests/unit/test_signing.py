"""Playback links: good until they end, for one stream, made with one secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.api.signing import LinkExpired, LinkInvalid, sign, verify

SECRET = b"a secret of the tests"
END = 1_790_000_000


def test_a_link_works_until_the_second_it_ends() -> None:
    link = sign(SECRET, "str_1", END)
    assert verify(SECRET, "str_1", link, END - 0.001) == END
    with pytest.raises(LinkExpired):
        verify(SECRET, "str_1", link, END)


def test_the_format_is_stable() -> None:
    """Links outlive a deployment: the same secret must go on making the same ones (computed once with openssl)."""
    assert sign(b"k" * 32, "str_1", END) == f"{END}-zDPdUGCf8761y2ZhPhrSVY_78bSfv7K31Ql_DLDzm6M"


@pytest.mark.parametrize(
    "link",
    [
        pytest.param(sign(b"another secret", "str_1", END), id="another secret"),
        pytest.param(sign(SECRET, "str_2", END), id="another stream"),
        pytest.param(sign(SECRET, "str_1", END).replace(str(END), str(END + 1), 1), id="a later end"),
        pytest.param("0" + sign(SECRET, "str_1", END), id="a leading zero"),
        pytest.param(sign(SECRET, "str_1", END) + "=", id="padding"),
        pytest.param(sign(SECRET, "str_1", END) + "\n", id="a line break"),
        pytest.param(sign(SECRET, "str_1", END)[:-1], id="cut short"),
        pytest.param(f"{END}-", id="no signature"),
        pytest.param("١٢٣-" + "A" * 43, id="other digits"),
        pytest.param("", id="empty"),
    ],
)
def test_any_other_link_is_invalid(link: str) -> None:
    with pytest.raises(LinkInvalid):
        verify(SECRET, "str_1", link, 0)


def test_a_forged_link_is_invalid_even_where_it_claims_to_have_expired() -> None:
    forged = sign(b"another secret", "str_1", END)
    with pytest.raises(LinkInvalid):
        verify(SECRET, "str_1", forged, END + 1)


def test_stream_and_end_cannot_run_into_each_other() -> None:
    assert sign(SECRET, "a\n1", 2).split("-", 1)[1] != sign(SECRET, "a", 12).split("-", 1)[1]


@given(st.text(max_size=80))
def test_no_text_is_a_link_by_chance_or_breaks_the_check(link: str) -> None:
    with pytest.raises(LinkInvalid):
        verify(SECRET, "str_1", link, 0)
