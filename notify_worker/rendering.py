"""Texts of messages to people, from the templates of a language: `templates/LOCALE/NAME.txt`, and `NAME.html` of mails.

The text's first line is the mail's subject, `Subject: …`. What a template wants as data, control.ledger.notices tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from control.settings import NotifySettings, current

_TEMPLATES: Final = Path(__file__).with_name("templates")
_FALLBACK: Final = "en"
_NAME: Final = re.compile(r"[a-z]+(_[a-z]+)*")
_SUBJECT: Final = "Subject: "
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_SIGNS: Final = {"TWD": "NT$", "USD": "US$", "HKD": "HK$", "EUR": "€", "GBP": "£", "JPY": "¥"}
# ISO 4217's minor units, where they are not two.
_DECIMALS: Final = {"BHD": 3, "CLP": 0, "ISK": 0, "JPY": 0, "KRW": 0, "KWD": 3, "OMR": 3, "VND": 0}


@dataclass(frozen=True)
class Rendered:
    """A message as its reader gets it. `html` is None of what is no mail."""

    subject: str
    text: str
    html: str | None


def render(template: str, locale: str, data: Mapping[str, Any], settings: NotifySettings | None = None) -> Rendered:
    """The message `template` in the language `locale`, or in English where there is no such translation.

    Raises jinja2.UndefinedError where data is missing, jinja2.TemplateNotFound.
    """
    if not _NAME.fullmatch(template):
        raise ValueError(f"{template!r} is no template")
    settings = settings or current().notify
    known = locale if re.fullmatch(r"[A-Za-z-]+", locale) and _path(locale, template).is_file() else _FALLBACK
    environment = _environment(known, settings.time_zone)
    shop = {"name": settings.shop_name, "url": (settings.shop_url or "").rstrip("/")}
    context = {**data, "shop": shop, "locale": known}
    text = environment.get_template(f"{template}.txt").render(context).strip()
    subject = ""
    if text.startswith(_SUBJECT):
        subject, _, text = text.removeprefix(_SUBJECT).partition("\n")
    html = None
    if _path(known, template).with_suffix(".html").is_file():
        html = environment.get_template(f"{template}.html").render(context | {"subject": subject})
    return Rendered(" ".join(subject.split()), text.strip() + "\n", html)


def money(minor: int, currency: str) -> str:
    """`123400`, `TWD` → `NT$1,234`. Cents are shown where there are some, and always of other currencies than TWD."""
    decimals = _DECIMALS.get(currency, 2)
    whole, rest = divmod(abs(minor), 10**decimals)
    cents = f".{rest:0{decimals}}" if decimals and (rest or currency != "TWD") else ""
    return f"{'−' if minor < 0 else ''}{_SIGNS.get(currency, currency + ' ')}{whole:,}{cents}"


def moment(text: str, locale: str, zone: str) -> str:
    """An ISO 8601 instant as people of the zone write it, with the zone's distance from Greenwich."""
    at = datetime.fromisoformat(text).astimezone(ZoneInfo(zone))
    offset = at.strftime("%z")
    hours = f"GMT{offset[0]}{int(offset[1:3])}" + (f":{offset[3:5]}" if offset[3:5] != "00" else "")
    comma = " " if locale == "zh-TW" else ", "
    return f"{day(at.date().isoformat(), locale)}{comma}{at:%H:%M} ({hours})"


def day(text: str, locale: str) -> str:
    """An ISO 8601 date: `1 October 2026`, `2026年10月1日`."""
    at = date.fromisoformat(text)
    if locale == "zh-TW":
        return f"{at.year}年{at.month}月{at.day}日"
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


@lru_cache(maxsize=8)
def _environment(locale: str, zone: str) -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader([_TEMPLATES / locale, _TEMPLATES]),
        autoescape=lambda name: bool(name and name.endswith(".html")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["line"] = lambda text: " ".join(str(text).split())
    made.filters["money"] = money
    made.filters["moment"] = partial(moment, locale=locale, zone=zone)
    made.filters["day"] = partial(day, locale=locale)
    return made


def _path(locale: str, template: str) -> Path:
    return _TEMPLATES / locale / f"{template}.txt"
