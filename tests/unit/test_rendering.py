"""What people read: every template, in both languages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

import notify_worker.rendering
from control.settings import NotifySettings
from notify_worker.rendering import day, moment, money, render

TEMPLATES = Path(notify_worker.rendering.__file__).with_name("templates")
LOCALES = ("en", "zh-TW")
ODD = "<b>Mug & “saucer”</b>"
_lines = [{"name": ODD, "quantity": 2, "unit_price_minor": 45_000}]
SAMPLES: dict[str, dict[str, Any]] = {
    "welcome": {"name": ODD},
    "order_confirmation": {"order_id": "ord_1", "total_minor": 90_000, "currency": "TWD", "lines": _lines},
    "payment_confirmation": {
        "order_id": "ord_1", "amount_minor": 90_000, "currency": "TWD", "paid_at": "2026-10-01T07:30:00+00:00",
    },
    "abandoned_cart": {"order_id": "ord_1", "total_minor": 90_000, "currency": "TWD", "lines": _lines},
    "order_status": {"order_id": "ord_1", "state": "refunded"},
    "replay_ready": {"stream_id": "str_1", "title": ODD},
    "daily_report": {
        "day": "2026-10-01",
        "sales": [{"currency": "TWD", "amount_minor": 90_000, "orders": 1, "items": 2}],
        "streams": [{"title": ODD, "viewers": 40, "orders": 1}],
    },
    "announcement": {"title": "Sale", "text": f"One.\n\n{ODD}", "name": ODD, "unsubscribe": "https://shop.example/no"},
    "admin_alert": {
        "total": 3, "at": "2026-10-01 07:30:00", "other_kinds": 1, "others": 1,
        "groups": [{"count": 2, "task": "t", "reason": "failed", "code": "c", "span": "1–2", "example": ODD}],
    },
}  # fmt: skip
SETTINGS = NotifySettings(_env_file=None, shop_name="Kiln & Co", shop_url="https://shop.example/")
PLAIN = NotifySettings(_env_file=None)


def test_every_template_is_there_in_both_languages_and_has_a_sample() -> None:
    names = {path.stem for path in (TEMPLATES / "en").glob("*.txt")}
    assert names - {"otp"} == set(SAMPLES)
    english, chinese = ({path.name for path in (TEMPLATES / locale).iterdir()} for locale in LOCALES)
    assert english == chinese


@pytest.mark.parametrize("settings", [SETTINGS, PLAIN])
@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("template", SAMPLES)
def test_a_template_is_whole(template: str, locale: str, settings: NotifySettings) -> None:
    made = render(template, locale, SAMPLES[template], settings)
    assert "{{" not in made.text + str(made.html)
    assert "built-in" not in made.text + str(made.html)  # `items` of a row is a method
    assert "\n\n\n" not in made.text
    assert made.text.strip()
    assert bool(re.search("[\u4e00-\u9fff]", made.text)) == (locale == "zh-TW")
    if template == "order_status":
        assert (made.subject, made.html) == ("", None)
        assert len(made.text.strip()) <= 70  # one message of UCS-2
        return
    assert made.subject
    assert "\n" not in made.subject
    assert not made.text.startswith("Subject")
    assert made.html is not None
    assert f'lang="{locale}"' in made.html
    assert "<b>Mug" not in made.html  # what a seller wrote is text
    if ODD in str(SAMPLES[template]):
        assert "&lt;b&gt;Mug &amp; “saucer”&lt;/b&gt;" in made.html
        assert ODD in made.text
    assert "<script" not in made.html
    assert "<img" not in made.html


@pytest.mark.parametrize("locale", LOCALES)
def test_mails_link_to_the_shop(locale: str) -> None:
    made = render("order_confirmation", locale, SAMPLES["order_confirmation"], SETTINGS)
    assert "https://shop.example/orders/ord_1" in made.text
    assert 'href="https://shop.example/orders/ord_1"' in str(made.html)
    assert "NT$900" in made.text
    assert "NT$900" in str(made.html)
    assert "href" not in str(render("order_confirmation", locale, SAMPLES["order_confirmation"], PLAIN).html)


def test_a_subject_is_one_line_whatever_was_written() -> None:
    made = render("replay_ready", "en", {"stream_id": "s", "title": "a\r\nBcc: other@example.com\n\nb"}, PLAIN)
    assert made.subject == "The replay of “a Bcc: other@example.com b” is ready"


def test_what_is_missing_is_an_error_and_no_gap() -> None:
    with pytest.raises(UndefinedError):
        render("order_confirmation", "en", {"order_id": "ord_1"}, PLAIN)


def test_a_language_nobody_translated_to_is_english() -> None:
    sample = SAMPLES["welcome"]
    assert render("welcome", "fr", sample, PLAIN) == render("welcome", "en", sample, PLAIN)
    assert render("welcome", "../en", sample, PLAIN) == render("welcome", "en", sample, PLAIN)


def test_a_template_cannot_be_a_path() -> None:
    with pytest.raises(ValueError, match="no template"):
        render("../parts", "en", {}, PLAIN)


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (123_400, "TWD", "NT$1,234"),
        (123_450, "TWD", "NT$1,234.50"),
        (0, "TWD", "NT$0"),
        (-123_400, "TWD", "−NT$1,234"),
        (100, "USD", "US$1.00"),
        (1_234, "JPY", "¥1,234"),
        (1_234_567, "KWD", "KWD 1,234.567"),
    ],
)
def test_money(minor: int, currency: str, text: str) -> None:
    assert money(minor, currency) == text


@given(st.integers(min_value=0, max_value=10**12))
def test_no_cent_is_lost_between_units_and_text(minor: int) -> None:
    whole, _, cents = money(minor, "USD").removeprefix("US$").replace(",", "").partition(".")
    assert int(whole) * 100 + int(cents) == minor


@pytest.mark.parametrize(
    ("locale", "zone", "text"),
    [
        ("en", "Asia/Taipei", "1 October 2026, 00:30 (GMT+8)"),
        ("zh-TW", "Asia/Taipei", "2026年10月1日 00:30 (GMT+8)"),
        ("en", "Asia/Kolkata", "30 September 2026, 22:00 (GMT+5:30)"),
        ("en", "America/New_York", "30 September 2026, 12:30 (GMT-4)"),
    ],
)
def test_times_are_the_readers(locale: str, zone: str, text: str) -> None:
    assert moment("2026-09-30T16:30:00+00:00", locale, zone) == text


def test_days() -> None:
    assert (day("2026-01-09", "en"), day("2026-01-09", "zh-TW")) == ("9 January 2026", "2026年1月9日")
