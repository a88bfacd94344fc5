"""Daily reports: figures of the zone's day, files, and one mail each, however often they are made."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, func, select, update

from control.bus import names
from control.bus.app import NOTIFY, PIPELINES
from control.ledger import notices, outbox, reports
from control.ledger.analytics_models import DailyReport, StreamAnalytics, ViewEvent
from control.ledger.engine import Ledger
from control.ledger.figures import DayFigures
from control.ledger.models import Stream
from control.ledger.notice_models import Notice
from control.ledger.order_models import Order, OrderLine
from control.settings import NotifySettings, Settings, use
from control.storage import LocalStore
from notify_worker.reports import sheet
from notify_worker.reports.make import make
from tests.bus import bus, until
from tests.mail import MailServer, mail_server
from tests.viewers import refund, sell, stream, views, watch

TAIPEI = ZoneInfo("Asia/Taipei")
DAY = date(2026, 11, 24)
MIDNIGHT = datetime(2026, 11, 23, 16, tzinfo=UTC)  # of Taipei
HOUR = 3600
FORMULA = '=HYPERLINK("http://evil.example","Bowl")'


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server() as made:
        yield made


@pytest.fixture
def mailing(settings: Settings, server: MailServer) -> Settings:
    """Settings that mail to `server`."""
    notify = NotifySettings(
        _env_file=None, admins=["ops@example.com"], mail_url=SecretStr(f"smtp://127.0.0.1:{server.port}")
    )
    made = settings.model_copy(update={"notify": notify})
    use(made)
    return made


def business(ledger: Ledger) -> None:
    """A day of two sellers, with something right before and right after it."""
    stream(ledger, "evening", begin=MIDNIGHT + timedelta(hours=23, minutes=50), seconds=1200)  # across midnight
    stream(ledger, "other", seller_id="loom", begin=MIDNIGHT + timedelta(hours=10), seconds=600)
    stream(ledger, "before", begin=MIDNIGHT - timedelta(hours=2), seconds=600)
    begin = MIDNIGHT + timedelta(hours=23, minutes=50)
    watch(ledger, views(" ".join(f"a{second}h" for second in range(0, 1200, 30)), begin), "evening")
    watch(ledger, views("a0j b0j a50l b40l", MIDNIGHT + timedelta(hours=10)), "other")
    sales = (
        ("o1", -1, 999, "kiln", "TWD", None), ("o2", 0, 500_00, "kiln", "TWD", "evening"),
        ("o3", 20 * HOUR, 300_00, "kiln", "TWD", "evening"), ("o4", 20 * HOUR + 5, 20_00, "kiln", "USD", None),
        ("o5", 10 * HOUR + 60, 80_00, "loom", "TWD", "other"), ("o6", 24 * HOUR, 777, "loom", "TWD", None),
    )  # fmt: skip
    for order_id, second, amount, seller_id, currency, stream_id in sales:
        sell(
            ledger,
            order_id,
            second,
            amount,
            seller_id=seller_id,
            currency=currency,
            stream_id=stream_id,
            begin=MIDNIGHT,
        )
    refund(ledger, "o1", MIDNIGHT + timedelta(hours=3))  # sold the day before
    refund(ledger, "o3", MIDNIGHT + timedelta(days=1))  # went back the day after
    with ledger.write() as session:
        for order_id, name, quantity, price in (("o2", "Bowl", 5, 100_00), ("o3", FORMULA, 1, 300_00)):
            about = {"locale": "en", "state": "paid", "total_minor": quantity * price, "currency": "TWD"}
            session.add(
                Order(id=order_id, buyer_id="b", seller_id="kiln", created_at=MIDNIGHT, updated_at=MIDNIGHT, **about)
            )
            session.flush()
            line = {"product_id": f"p-{order_id}", "name": name, "quantity": quantity, "unit_price_minor": price}
            session.add(OrderLine(order_id=order_id, number=1, **line))
        notices.set_contact(session, "kiln", email="kiln@example.com", name="Kiln", locale="en")
        session.get_one(Stream, "evening").title = FORMULA


def made(ledger: Ledger, store: LocalStore, settings: Settings, *, resend: bool = False) -> dict[str, DayFigures]:
    return make(ledger, store, settings, DAY, TAIPEI, resend=resend)


def mails(ledger: Ledger) -> list[Notice]:
    with ledger.read() as session:
        return list(session.scalars(select(Notice).order_by(Notice.id)))


def test_figures_are_those_of_the_day_there(ledger: Ledger, local_store: LocalStore, mailing: Settings) -> None:
    business(ledger)
    found = made(ledger, local_store, mailing)
    assert set(found) == {"", "kiln", "loom"}
    kiln, whole = found["kiln"], found[""]
    assert (kiln.begin, kiln.end - kiln.begin) == (MIDNIGHT, timedelta(days=1))
    assert [(one.currency, one.orders, one.revenue_minor, one.refunded_minor) for one in kiln.totals] == [
        ("TWD", 2, 800_00, 999),
        ("USD", 1, 20_00, 0),
    ]
    assert {hour.label: hour.revenue_minor for hour in kiln.hours if hour.orders} == {
        "00:00": {"TWD": 500_00},
        "20:00": {"TWD": 300_00, "USD": 20_00},
    }
    assert [(one.name, one.quantity, one.revenue_minor) for one in kiln.top_products] == [
        ("Bowl", 5, 500_00),
        (FORMULA, 1, 300_00),
    ]
    # Ten of its twenty minutes are of this day.
    assert (kiln.streams, kiln.viewers, kiln.watch_seconds) == (1, 1, 600)
    assert (whole.orders, whole.streams, whole.viewers, whole.watch_seconds) == (4, 2, 2, 690)
    with ledger.read() as session:
        assert DayFigures.model_validate(reports.get(session, "2026-11-24", "Asia/Taipei", "kiln").data) == kiln


def test_a_file_each_that_no_spreadsheet_computes_with(
    ledger: Ledger, local_store: LocalStore, mailing: Settings
) -> None:
    business(ledger)
    made(ledger, local_store, mailing)
    keys = list(local_store.list("reports/"))
    folder = "reports/2026-11-24/Asia%2FTaipei/"
    assert keys == [f"{folder}all.csv", f"{folder}seller-kiln.csv", f"{folder}seller-loom.csv"]
    content = local_store.get_bytes(f"{folder}seller-kiln.csv")
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert rows[0] == list(sheet.HEADER)
    assert [(row[0], row[1], row[2], row[-1]) for row in rows[1:]] == [
        ("sale", "2026-11-24T00:00:00+08:00", "o2", "50000"),
        ("refund", "2026-11-24T03:00:00+08:00", "o1", "-999"),
        ("sale", "2026-11-24T20:00:00+08:00", "o3", "30000"),
        ("sale", "2026-11-24T20:00:05+08:00", "o4", "2000"),
    ]
    assert rows[1][5] == f"'{FORMULA}"
    before = {key: local_store.get_bytes(key) for key in keys}
    made(ledger, local_store, mailing)
    assert {key: local_store.get_bytes(key) for key in local_store.list("reports/")} == before


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "　=1"])
def test_what_a_spreadsheet_would_compute_is_text(text: str) -> None:
    assert sheet.plain(text) == f"'{text}"
    assert sheet.plain(f"a{text}") == f"a{text}"


def test_one_mail_each_unless_another_is_asked_for(ledger: Ledger, local_store: LocalStore, mailing: Settings) -> None:
    business(ledger)
    made(ledger, local_store, mailing)
    made(ledger, local_store, mailing)
    assert sorted(notice.to or "" for notice in mails(ledger)) == ["kiln@example.com", "ops@example.com"]
    made(ledger, local_store, mailing, resend=True)
    assert len(mails(ledger)) == 4


def test_of_a_day_without_anything_nobody_is_mailed(ledger: Ledger, local_store: LocalStore, mailing: Settings) -> None:
    found = made(ledger, local_store, mailing)
    assert found[""].is_empty
    assert mails(ledger) == []
    with ledger.read() as session:
        assert reports.get(session, "2026-11-24", "Asia/Taipei")  # but it is known that there was nothing


def test_a_late_sale_is_in_the_report_made_again(ledger: Ledger, local_store: LocalStore, mailing: Settings) -> None:
    business(ledger)
    made(ledger, local_store, mailing)
    sell(ledger, "late", 5 * HOUR, 1_00, seller_id="loom", stream_id=None, begin=MIDNIGHT)
    assert made(ledger, local_store, mailing)["loom"].orders == 2


def test_a_day_is_as_it_was_after_its_streams_were_cleaned_up(
    ledger: Ledger, local_store: LocalStore, mailing: Settings
) -> None:
    business(ledger)
    before = made(ledger, local_store, mailing)
    with ledger.write() as session:
        session.execute(update(StreamAnalytics).values(sealed_at=MIDNIGHT))
        session.execute(delete(ViewEvent))
    assert made(ledger, local_store, mailing) == before


def test_days_are_asked_for_once_they_are_over(ledger: Ledger, local_store: LocalStore, mailing: Settings) -> None:
    over = MIDNIGHT + timedelta(hours=26)
    with ledger.write() as session:
        assert reports.request_due(session, over - timedelta(hours=1), TAIPEI, 2) == [DAY - timedelta(days=1)]
        assert reports.request_due(session, over, TAIPEI, 2) == [DAY]
    made(ledger, local_store, mailing)
    with ledger.write() as session:
        assert reports.request_due(session, over, TAIPEI, 2) == []


def test_from_the_clock_to_the_mail(mailing: Settings, server: MailServer) -> None:
    with bus(mailing, modules=(PIPELINES, NOTIFY)) as running:
        business(running.ledger)
        with running.ledger.write() as session:
            outbox.add(session, names.GENERATE_DAILY_REPORT, {"day": "2026-11-24"})
        until(lambda: len(server.mails) == 2, "both reports are mailed", 20)
        mail = next(one for one, to in zip(server.mails, server.to, strict=True) if to == ["kiln@example.com"])
        html = mail.get_body(("html",))
        assert html is not None
        page = html.get_content()
        assert "NT$800" in page
        assert 'width="100%" cellpadding="0" cellspacing="0" border="0"><tr><td height="14"' in page
        assert 'width="60%" cellpadding' in page  # 300 of 500
        assert "<script" not in page
        assert "<img" not in page
        assert "=HYPERLINK(&#34;http" in page
        with running.ledger.write() as session:  # without a day: whatever is due
            outbox.add(session, names.GENERATE_DAILY_REPORT, {"zone": "UTC"})

        def known() -> int:
            with running.ledger.read() as session:
                return session.scalar(select(func.count()).where(DailyReport.zone == "UTC")) or 0

        until(lambda: known() > 0, "the day that is due has a report", 20)
