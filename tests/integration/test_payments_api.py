"""Payments over HTTP: the form, the gateway's notices at the door, and the whole way on the bus."""

from __future__ import annotations

import logging
import threading
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from control.api.app import create_app
from control.api.payment_webhook import LARGEST_BYTES
from control.bus import names
from control.bus.embedded import Embedded
from control.errors import ConfigurationError
from control.gateways.ecpay.signature import is_genuine
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.payment_models import PaymentNotice
from control.ledger.task_models import TaskRow
from control.settings import Settings, use
from control.storage import LocalStore
from tests.api_server import Api, problem, serving
from tests.bus import until
from tests.conftest import API_KEY
from tests.ecpay import MERCHANT, body, fake_ecpay, notice, payment_settings
from tests.paying import opened, over, reserved
from tests.unit.test_ecpay import FORGED

HOOK = "/webhooks/payment/ecpay"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    made = settings.model_copy(update={"payment": payment_settings(return_url="https://shop.example/")})
    use(made)
    return made


def count(ledger: Ledger, table: Any) -> int:
    with ledger.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def order(api: Api, **changes: Any) -> str:
    with api.ledger.write() as session:
        return reserved(session, **changes).id


def metric(api: Api, result: str) -> float:
    for line in api.client.get("/metrics").text.splitlines():
        if line.startswith(f'afterlive_payment_notices_total{{gateway="ecpay",result="{result}"}}'):
            return float(line.split()[-1])
    return 0.0


# --- for the shop -----------------------------------------------------------------------------------------------------


def test_an_order_is_to_be_paid(api: Api) -> None:
    order_id = order(api)
    answer = api.client.post(f"/orders/{order_id}/payments")
    assert answer.status_code == 201
    payment, form = answer.json()["payment"], answer.json()["form"]
    assert (payment["state"], payment["amount_minor"], payment["currency"]) == ("pending", 129900, "TWD")
    assert form["action"] == "http://127.0.0.1:9/Cashier/AioCheckOut/V5"
    assert form["fields"]["ReturnURL"] == f"https://shop.example{HOOK}"
    assert form["fields"]["ItemName"] == "杯子 x 1"
    assert is_genuine(form["fields"], MERCHANT.hash_key, MERCHANT.hash_iv)
    assert answer.headers["location"] == f"/payments/{payment['id']}"
    assert api.client.get(answer.headers["location"]).json() == payment

    again = api.client.post(f"/orders/{order_id}/payments", json={"renew": False})
    assert again.json() == answer.json()
    renewed = api.client.post(f"/orders/{order_id}/payments", json={"renew": True}).json()["payment"]
    shown = api.client.get(f"/orders/{order_id}/payments").json()["items"]
    assert [one["id"] for one in shown] == [renewed["id"], payment["id"]]
    assert [one["id"] for one in api.client.get("/payments", params={"limit": 1}).json()["items"]] == [renewed["id"]]
    found = api.client.get("/payments", params={"state": "expired", "after": renewed["id"]}).json()
    assert [one["id"] for one in found["items"]] == [payment["id"]]


def test_what_cannot_be_paid_says_why(api: Api) -> None:
    problem(api.client.post("/orders/ord_none/payments"), 404, "not-found")
    problem(api.client.get("/payments/pay_none"), 404, "not-found")
    problem(api.client.post("/payments/pay_none/refund"), 404, "not-found")
    problem(api.client.post(f"/orders/{order(api, total_minor=129950)}/payments"), 422, "amount-invalid")
    order_id = order(api)
    with api.ledger.write() as session:
        over(session, order_id)
    problem(api.client.post(f"/orders/{order_id}/payments"), 409, "conflict")
    problem(api.stranger.post(f"/orders/{order_id}/payments"), 401, "key-required")
    payment = opened(api.ledger)
    problem(api.client.post(f"/payments/{payment.id}/refund"), 409, "conflict")
    assert api.client.post(f"/payments/{payment.id}/check").status_code == 202


def test_without_a_merchant_there_are_no_payments(settings: Settings, ledger: Ledger, local_store: LocalStore) -> None:
    nobody = payment_settings(merchant_id=None, hash_key=None, hash_iv=None)
    app = create_app(settings.model_copy(update={"payment": nobody}), ledger, local_store)
    with serving(app) as url, httpx.Client(base_url=url, headers={"X-API-Key": API_KEY}) as client:
        problem(client.post("/orders/ord_1/payments"), 503, "payments-off")
        assert client.post(HOOK, content=body(notice())).status_code == 404
    half = payment_settings(hash_iv=None)
    with pytest.raises(ConfigurationError, match="HASH_IV"):
        create_app(settings.model_copy(update={"payment": half}), ledger, local_store)


# --- at the door ------------------------------------------------------------------------------------------------------


def test_a_notice_is_stored_once_before_it_is_answered(api: Api) -> None:
    payment = opened(api.ledger)
    stored, known = metric(api, "stored"), metric(api, "known")
    for _ in range(3):
        answer = api.stranger.post(HOOK, content=body(notice(payment.trade_no)))
        assert (answer.status_code, answer.content) == (200, b"1|OK")
        assert answer.headers["content-type"].startswith("text/plain")
    with api.ledger.read() as session:
        (kept,) = session.scalars(select(PaymentNotice)).all()
        (row,) = session.scalars(select(OutboxRow).where(OutboxRow.task == names.PROCESS_PAYMENT_WEBHOOK.name)).all()
        task = session.get_one(TaskRow, row.task_id)
    assert row.payload == {"notice_id": kept.id, "trade_no": payment.trade_no}
    assert (task.state, task.key, task.queue) == ("PENDING", payment.trade_no, "high_priority")
    assert "CheckMacValue" not in kept.fields
    assert (metric(api, "stored"), metric(api, "known")) == (stored + 1, known + 2)
    assert 'method="POST",route="/webhooks/payment/{gateway}",status="200"' in api.client.get("/metrics").text


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_notice_stays_outside(api: Api, caplog: pytest.LogCaptureFixture, name: str) -> None:
    forged = metric(api, "forged")
    with caplog.at_level(logging.DEBUG):
        answer = api.stranger.post(HOOK, content=FORGED[name])
    assert (answer.status_code, answer.text) == (403, "0|CheckMacValue Error")
    assert count(api.ledger, PaymentNotice) == count(api.ledger, OutboxRow) == 0
    assert metric(api, "forged") == forged + 1
    ours = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("control"))
    assert "was refused" in ours
    for secret in ("TRADE1", "1299", MERCHANT.hash_key):
        assert secret not in ours


def test_the_door_is_no_way_round_the_key(api: Api) -> None:
    assert api.stranger.post("/webhooks/payment/stripe", content=b"a=1").status_code == 404
    problem(api.stranger.post("/webhooks/payment/"), 404, "not-found")
    problem(api.stranger.get(HOOK), 405, "method-not-allowed")
    problem(api.stranger.post("/webhooks/payment/../../streams"), 401, "key-required")
    assert api.stranger.post(HOOK, content=body(notice(RtnCode="x"))).status_code == 400
    big = b"a=" + b"1" * LARGEST_BYTES
    assert api.stranger.post(HOOK, content=big).status_code == 413
    assert api.stranger.post(HOOK, content=iter([big[:9000], big[9000:]])).status_code == 413
    assert count(api.ledger, PaymentNotice) == 0


def test_many_at_once_are_each_stored_once(api: Api) -> None:
    bodies = [body(notice(f"TRADE{number % 10}")) for number in range(60)]
    said: list[bytes] = []

    def send(some: list[bytes]) -> None:
        with httpx.Client(base_url=api.stranger.base_url, timeout=30) as client:
            said.extend(client.post(HOOK, content=one).content for one in some)

    threads = [threading.Thread(target=send, args=[bodies[start::6]]) for start in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [b"1|OK"] * 60
    assert count(api.ledger, PaymentNotice) == count(api.ledger, OutboxRow) == 10


def test_while_the_ledger_is_away_nothing_is_accepted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not told 1|OK tells again."""

    def away(*_: Any) -> None:
        raise OperationalError("INSERT", {"fields": "TRADE1"}, Exception("gone"))

    with monkeypatch.context() as patch:
        patch.setattr(api.ledger, "write", away)
        answer = api.stranger.post(HOOK, content=body(notice()))
    assert (answer.status_code, answer.text) == (503, "0|try again later")
    assert api.stranger.post(HOOK, content=body(notice())).content == b"1|OK"


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_embedded_from_the_form_to_the_refund(settings: Settings, local_store: LocalStore) -> None:
    """The buyer pays at the gateway, which loses its first notice and then sends it twice; the money goes back."""
    with fake_ecpay() as fake:
        made = settings.model_copy(update={"payment": payment_settings(fake.url)})
        modules = ["pipelines.tasks", "notify_worker.tasks"]
        with Embedded(made, modules) as workers:
            with workers.ledger.write() as session:
                order_id = reserved(session).id
            app = create_app(made, workers.ledger, local_store, wake=workers.relay.wake)
            with serving(app) as url, httpx.Client(base_url=url, headers={"X-API-Key": API_KEY}) as client:
                answer = client.post(f"/orders/{order_id}/payments").json()
                payment_id, trade_no = answer["payment"]["id"], answer["payment"]["trade_no"]
                assert fake.submit(answer["form"]).status_code == 200
                fake.lie(drop=1, copies=2)
                fake.press(trade_no, "pay")

                def state() -> str:
                    return str(client.get(f"/payments/{payment_id}").json()["state"])

                until(lambda: state() == "paid", "it is paid")
                until(lambda: [one["answer"] for one in fake.told] == ["dropped", "1|OK", "1|OK"], "it heard us")
                assert client.post(f"/payments/{payment_id}/refund").json()["state"] == "refunding"
                until(lambda: state() == "refunded", "it went back")
                assert fake.trade(trade_no)["given_back"]
