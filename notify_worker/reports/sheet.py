"""The day's sales and refunds as CSV (RFC 4180), one file a seller and one of all: UTF-8 with a byte order mark,
without which Excel reads Chinese as something else."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from sqlalchemy import Select, literal, select, union_all
from sqlalchemy.orm import Session as Transaction

from control.ledger.analytics_models import Sale, SaleRefund
from control.ledger.models import Stream

HEADER: Final = (
    "kind", "time", "order_id", "seller_id", "stream_id", "stream", "items", "currency", "amount_minor",
)  # fmt: skip
_AT_A_TIME: Final = 2000
# What a spreadsheet would take for a formula, in either width.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def key_of(day: str, zone: str, seller_id: str) -> str:
    """Where in the object store the file of a seller, or of all, is."""
    name = f"seller-{quote(seller_id, safe='')}" if seller_id else "all"
    return f"reports/{day}/{quote(zone, safe='')}/{name}.csv"


def write(
    session: Transaction,
    folder: Path,
    begin: datetime,
    end: datetime,
    zone: ZoneInfo,
    sellers: Iterable[str],
    check: Callable[[], None] = lambda: None,
) -> dict[str, Path]:
    """The files in `folder`, by seller ("": all); the same for the same facts. `sellers` without a line have a file
    as well."""
    lines = _lines(begin, end).subquery()
    of_all = select(lines).order_by(lines.c.at, lines.c.order_id, lines.c.kind)
    whole = session.execute(of_all, execution_options={"yield_per": _AT_A_TIME})
    made = {"": _file(folder / "all.csv", whole, zone)}
    by_seller = select(lines).order_by(lines.c.seller_id, lines.c.at, lines.c.order_id, lines.c.kind)
    rows = session.execute(by_seller, execution_options={"yield_per": _AT_A_TIME})
    for seller_id, own in groupby(rows, lambda row: str(row.seller_id)):
        check()
        made[seller_id] = _file(folder / f"{len(made)}.csv", own, zone)
    for seller_id in set(sellers) - made.keys():
        made[seller_id] = _file(folder / f"{len(made)}.csv", (), zone)
    return made


def _lines(begin: datetime, end: datetime) -> Any:
    sold = _columns("sale", Sale.at, 1).where(Sale.at >= begin, Sale.at < end)
    back = _columns("refund", SaleRefund.at, -1).join(SaleRefund, SaleRefund.order_id == Sale.order_id)
    return union_all(sold, back.where(SaleRefund.at >= begin, SaleRefund.at < end))


def _columns(kind: str, at: Any, sign: int) -> Select[Any]:
    amount = (Sale.amount_minor * sign).label("amount_minor")
    columns = (literal(kind).label("kind"), at.label("at"), Sale.order_id, Sale.seller_id, Sale.stream_id)
    query = select(*columns, Stream.title, (Sale.items * sign).label("items"), Sale.currency, amount)
    return query.select_from(Sale).outerjoin(Stream, Stream.id == Sale.stream_id)


def _file(path: Path, rows: Iterable[Any], zone: ZoneInfo) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        write_rows(file, rows, zone)
    return path


def write_rows(file: Any, rows: Iterable[Any], zone: ZoneInfo) -> None:
    """Header and lines; times are the zone's."""
    writer = csv.writer(file)
    writer.writerow(HEADER)
    for row in rows:
        writer.writerow(_cells(row, zone))


def _cells(row: Any, zone: ZoneInfo) -> Sequence[str | int]:
    texts = (row.order_id, row.seller_id, row.stream_id, row.title)
    time = row.at.astimezone(zone).isoformat(timespec="seconds")
    return (row.kind, time, *map(plain, texts), row.items, row.currency, row.amount_minor)


def plain(text: str | None) -> str:
    """As a text, whatever a spreadsheet makes of it."""
    if not text:
        return ""
    return f"'{text}" if text.lstrip(" \u3000").startswith(_FORMULA) or text.startswith(("\t", "\r", "\n")) else text
