"""One-time passwords from the request to the phone and back, with real providers; and that nothing of them is told."""

from __future__ import annotations

import logging
import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import MetaData, select

from control import telemetry
from control.api.app import create_app
from control.bus import names
from control.bus.app import NOTIFY, PIPELINES
from control.bus.context import Delivery, working_on
from control.bus.embedded import Embedded
from control.ledger import notices, otp, outbox, tasks
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.otp_models import Otp
from control.ledger.otp_vault import need_vault
from control.ledger.task_models import FailedTask
from control.settings import NotifySettings, OtpSettings, Settings, use
from control.storage import LocalStore
from notify_worker.tasks.sms import send_order_status_sms, send_otp_sms
from tests.api_server import problem, serving
from tests.bus import until
from tests.conftest import API_KEY
from tests.services import free_port
from tests.sms import Provider, provider

PHONE, DIALLED, IP = "+886912345678", "0912 345 678", "203.0.113.7"
SMS = names.SEND_OTP_SMS
ASKED = {"phone": DIALLED, "purpose": "login", "locale": "en", "ip": IP}


@pytest.fixture
def server() -> Iterator[Provider]:
    with provider() as made:
        yield made


def with_sms(settings: Settings, urls: Sequence[str], **changes: Any) -> Settings:
    otps = OtpSettings(_env_file=None, **{"secret": SecretStr("secret-of-the-tests"), **changes})
    notify = NotifySettings(_env_file=None, sms_urls=[SecretStr(url) for url in urls])
    made = settings.model_copy(update={"otp": otps, "notify": notify})
    use(made)
    return made


@dataclass
class Shop:
    """The platform's back end, and what it talks to."""

    client: httpx.Client
    ledger: Ledger

    def ask(self, **changes: Any) -> dict[str, Any]:
        answer = self.client.post("/otp", json={**ASKED, **changes})
        assert answer.status_code == 202, answer.text
        assert answer.headers["cache-control"] == "no-store"
        found: dict[str, Any] = answer.json()
        return found

    def verify(self, otp_id: str, code: str) -> httpx.Response:
        return self.client.post("/otp/verify", json={"otp_id": otp_id, "code": code})

    def row(self, otp_id: str) -> Otp:
        with self.ledger.read() as session:
            return session.get_one(Otp, otp_id)

    def task(self, otp_id: str) -> str:
        with self.ledger.read() as session:
            return tasks.of_key(session, otp_id)[0].state

    def failed(self) -> FailedTask | None:
        with self.ledger.read() as session:
            return session.scalars(select(FailedTask)).one_or_none()


@contextmanager
def open_shop(settings: Settings) -> Iterator[Shop]:
    with Embedded(settings, (PIPELINES, NOTIFY)) as running:
        store = LocalStore(settings.media.recording_roots[0].parent / "a store")
        app = create_app(settings, running.ledger, store, wake=running.relay.wake)
        with serving(app) as url, httpx.Client(base_url=url, headers={"X-API-Key": API_KEY}, timeout=20) as client:
            yield Shop(client, running.ledger)


@pytest.fixture
def shop(settings: Settings, server: Provider) -> Iterator[Shop]:
    with open_shop(with_sms(settings, [server.url], resend_seconds=0)) as made:
        yield made


def code_in(server: Provider, number: int = 0) -> str:
    until(lambda: len(server.messages) > number, "a text message")
    (code,) = re.findall(r"\b[0-9]{6}\b", server.messages[number].fields["text"])
    return str(code)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


def expired() -> float:
    return float(telemetry.EXPIRED.labels(SMS.name)._value.get())


# --- there and back ---------------------------------------------------------------------------------------------------


def test_a_code_gets_to_the_phone_and_back_once(shop: Shop, server: Provider) -> None:
    asked = shop.ask()
    code = code_in(server)
    assert server.messages[0].fields["to"] == PHONE
    document = problem(shop.verify(asked["otp_id"], wrong(code)), 422, "otp-wrong")
    assert document["attempts_left"] == 4
    answer = shop.verify(asked["otp_id"], f" {code} ")
    assert answer.json() == {"verified": True, "otp_id": asked["otp_id"], "phone": PHONE, "purpose": "login"}
    problem(shop.verify(asked["otp_id"], code), 410, "otp-expired")
    until(lambda: shop.task(asked["otp_id"]) == "SUCCESS", "the task is done")
    row = shop.row(asked["otp_id"])
    assert (row.state, row.provider, row.provider_id) == ("verified", f"127.0.0.1:{server.port}", "m-1")
    assert len(server.messages) == 1


def test_a_later_code_ends_the_one_before_and_so_does_the_fifth_wrong_one(shop: Shop, server: Provider) -> None:
    first = shop.ask()
    old = code_in(server)
    second = shop.ask(locale="zh-TW")
    new = code_in(server, 1)
    assert "驗證碼" in server.messages[1].fields["text"]
    problem(shop.verify(first["otp_id"], old), 410, "otp-expired")
    assert shop.verify(second["otp_id"], new).status_code == 200
    third = shop.ask()
    code = code_in(server, 2)
    for _ in range(4):
        problem(shop.verify(third["otp_id"], wrong(code)), 422, "otp-wrong")
    for typed in (wrong(code), code):
        problem(shop.verify(third["otp_id"], typed), 423, "otp-locked")


def test_who_asks_too_often_is_told_when_to_come_back(settings: Settings, server: Provider) -> None:
    """However many ask at once."""
    with open_shop(with_sms(settings, [server.url], hourly_per_ip=2)) as shop, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shop.client.post("/otp", json=ASKED), range(8)))
        assert sorted(answer.status_code for answer in answers) == [202] + [429] * 7
        (asked,) = [answer.json() for answer in answers if answer.status_code == 202]
        assert asked["resend_after_seconds"] == 30
        refused = next(answer for answer in answers if answer.status_code == 429)
        problem(refused, 429, "rate-limited")
        assert 25 <= int(refused.headers["retry-after"]) <= 30
        code = code_in(server)
        shop.ask(phone="0987 654 321")
        refused = shop.client.post("/otp", json={**ASKED, "phone": "0987 654 322"})
        problem(refused, 429, "rate-limited")
        assert 3590 <= int(refused.headers["retry-after"]) <= 3600
        answers = list(pool.map(lambda _: shop.verify(asked["otp_id"], code), range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [410] * 7


def test_what_cannot_be_sent_is_refused_and_not_repeated(shop: Shop) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"phone": "02 2720 8889"}, "phone-invalid"),
        ({"phone": "0912 345"}, "phone-invalid"),
        ({"phone": DIALLED, "region": "US"}, "phone-invalid"),
        ({"phone": "1"}, "request-invalid"),
        ({"purpose": "Log in"}, "request-invalid"),
        ({"ip": "203.0.113"}, "request-invalid"),
        ({"locale": "fr"}, "request-invalid"),
        ({"code": "123456"}, "request-invalid"),
    ]
    for changes, code in wrong:
        answer = shop.client.post("/otp", json={**ASKED, **changes})
        problem(answer, 422, code)
        assert not [value for value in (DIALLED, "0912 345", "2720 8889", "123456") if value in answer.text]


def test_without_a_secret_the_rest_works(
    settings: Settings, ledger: Ledger, local_store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(with_sms(settings, [], secret=None), ledger, local_store)
    assert "no one-time passwords" in caplog.text
    with serving(app) as url, httpx.Client(base_url=url, headers={"X-API-Key": API_KEY}) as client:
        problem(client.post("/otp", json=ASKED), 503, "not-ready")
        problem(client.post("/otp/verify", json={"otp_id": "otp_1", "code": "123456"}), 503, "not-ready")
        assert client.get("/streams").status_code == 200


# --- providers --------------------------------------------------------------------------------------------------------


def test_where_a_provider_is_dead_the_next_one_sends(settings: Settings, server: Provider) -> None:
    dead = f"http://127.0.0.1:{free_port()}/"
    with provider(status=401) as closed, open_shop(with_sms(settings, [dead, closed.url, server.url])) as shop:
        asked = shop.ask()
        assert shop.verify(asked["otp_id"], code_in(server)).status_code == 200
        until(lambda: shop.row(asked["otp_id"]).provider == f"127.0.0.1:{server.port}", "it is noted who sent it")
        assert closed.asked == 1
        server.status = 422
        asked = shop.ask(phone="0987 654 321")
        found = until(shop.failed, "what is refused for the message is final, and reviewed")
        assert (found.code, found.attempts, found.key) == ("sender-refused", 1, asked["otp_id"])
        assert found.payload == {"otp_id": asked["otp_id"], "sealed": "***"}
        assert server.asked == 2


def test_a_provider_that_stays_away_is_tried_twice_again(shop: Shop, server: Provider) -> None:
    server.status = 503
    asked = shop.ask()
    found = until(shop.failed, "it is in failed_tasks", 15)
    assert (found.code, found.attempts, server.asked) == ("sender-unavailable", 3, 3)
    server.status = 200
    assert shop.task(asked["otp_id"]) == "FAILURE"
    assert not server.messages


def test_what_is_over_when_its_turn_comes_is_dropped_and_counted(settings: Settings, server: Provider) -> None:
    made = with_sms(settings, [server.url])
    ledger = Ledger(made.ledger.url)
    ledger.upgrade()
    with ledger.write() as session:
        vault = need_vault(made.otp.secret)
        (issued,) = otp.request_all(session, vault, made.otp, [otp.Asked(PHONE, "login", "en", None)])
        assert isinstance(issued, otp.Issued)
        session.get_one(Otp, issued.otp_id).expires_at -= timedelta(seconds=300)
    before = expired()
    with open_shop(made) as shop:
        until(lambda: shop.task(issued.otp_id) == "EXPIRED", "the task has expired")
        assert expired() == before + 1
        assert server.asked == 0
        assert shop.failed() is None
    ledger.close()


@pytest.mark.parametrize("lost", [True, False], ids=["on the bus", "in the outbox"])
def test_what_a_process_that_died_had_not_sent_the_next_one_sends(
    settings: Settings, server: Provider, lost: bool
) -> None:
    made = with_sms(settings, [server.url])
    vault = need_vault(made.otp.secret)
    ledger = Ledger(made.ledger.url)
    ledger.upgrade()
    with ledger.write() as session:
        (issued,) = otp.request_all(session, vault, made.otp, [otp.Asked(PHONE, "login", "en", None)])
        assert isinstance(issued, otp.Issued)
    if lost:
        with ledger.write() as session:
            outbox.sent(session, [row.id for row in outbox.due(session, 10)])
    ledger.close()
    with open_shop(made) as shop:
        assert shop.verify(issued.otp_id, code_in(server)).status_code == 200
        assert (shop.row(issued.otp_id).renewed_at is not None) == lost
        assert len(server.messages) == 1


def test_a_message_that_comes_twice_is_sent_once(settings: Settings, ledger: Ledger, server: Provider) -> None:
    """At the same moment, and again when it was sent: by the same message, and by another about the same code."""
    made = with_sms(settings, [server.url])
    vault = need_vault(made.otp.secret)
    with ledger.write() as session:
        (issued,) = otp.request_all(session, vault, made.otp, [otp.Asked(PHONE, "login", "en", None)])
        assert isinstance(issued, otp.Issued)
    with ledger.write() as session:
        (task,) = tasks.of_key(session, issued.otp_id)
        payload = session.scalars(select(OutboxRow)).one().payload

    def deliver(task_id: str) -> None:
        with working_on(Delivery(task_id, SMS.name, SMS.queue, issued.otp_id, 1)):
            send_otp_sms.body(**payload)

    server.hold = threading.Event()
    first = threading.Thread(target=deliver, args=[task.id])
    first.start()
    until(lambda: server.asked == 1, "the provider has it in hand")
    deliver(task.id)
    deliver(str(uuid.uuid4()))
    server.hold.set()
    first.join(10)
    deliver(task.id)
    deliver(str(uuid.uuid4()))
    assert server.asked == 1
    with ledger.read() as session:
        assert tasks.get(session, task.id).state == "SUCCESS"  # type: ignore[union-attr]


# --- how an order stands ----------------------------------------------------------------------------------------------


def test_how_an_order_stands_is_told_once(
    settings: Settings, ledger: Ledger, server: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with_sms(settings, [server.url])

    def tell(state: str) -> str:
        data = {"order_id": "ord_1", "state": state}
        with ledger.write() as session:
            found = notices.request(
                session, names.SEND_ORDER_STATUS_SMS, key=f"ord_1:{state}", to=PHONE, template="order_status",
                locale="zh-TW", data=data, about="ord_1", channel="sms",
            )  # fmt: skip
        assert found is not None
        for _ in range(2):
            with working_on(Delivery(str(uuid.uuid4()), names.SEND_ORDER_STATUS_SMS.name, "default", "ord_1", 1)):
                send_order_status_sms.body(notice_id=found, about="ord_1")
        with ledger.read() as session:
            return notices.load(session, found).state

    assert tell("confirmed") == "sent"
    server.status = 422
    assert tell("refunded") == "failed"
    assert [message.fields for message in server.messages] == [
        {"to": PHONE, "text": "【Afterlive】訂單 ord_1 已付款並確認。"}
    ]
    assert server.asked == 2 + 1  # what failed may be tried again, when somebody asks for it
    assert PHONE[4:] not in caplog.text


# --- nothing is told --------------------------------------------------------------------------------------------------


def test_no_code_and_no_number_is_anywhere_but_in_the_message(
    settings: Settings, server: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """Sent, verified, wrong, limited, refused and failed: logs, metrics, all of the ledger and what the API tells."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "celery", "afterlive"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    with open_shop(with_sms(settings, [server.url])) as shop:
        asked = shop.ask()
        codes = [code_in(server)]
        shop.verify(asked["otp_id"], wrong(codes[0]))
        shop.client.post("/otp", json=ASKED)
        shop.client.post("/otp", json={**ASKED, "phone": "0912 345"})
        kept = whole(shop.ledger)
        until(lambda: shop.task(asked["otp_id"]) == "SUCCESS", "it is sent")
        assert shop.verify(asked["otp_id"], codes[0]).status_code == 200
        server.answers = [503, 422]
        failing = shop.ask(phone="0987 654 321")
        found = until(shop.failed, "the other is in failed_tasks")
        told = [kept, whole(shop.ledger), caplog.text]
        places = ["/metrics", "/failed-tasks", f"/failed-tasks/{found.id}", f"/tasks?key={failing['otp_id']}"]
        told += [shop.client.get(place).text for place in [*places, f"/tasks?key={asked['otp_id']}"]]
    assert 'afterlive_sms_sends_total{outcome="sent"' in told[3]
    assert 'afterlive_otp_total{outcome="verified"}' in told[3]
    secrets = [PHONE, PHONE[4:], DIALLED, "987654321", "0987 654 321", IP]
    for text in told:
        assert not [secret for secret in secrets if secret in text]
        assert not [code for code in codes if re.search(rf"(?<![0-9a-f.]){code}(?![0-9a-f.])", text)]


def whole(ledger: Ledger) -> str:
    """All that is in it, as text."""
    tables = MetaData()
    with ledger.read() as session:
        connection = session.connection()
        tables.reflect(connection)
        return "\n".join(str(row) for table in tables.sorted_tables for row in connection.execute(select(table)))
