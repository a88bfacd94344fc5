"""One text to many: over the API, at the provider's pace, each once; and what else the API tells of messages."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from control import telemetry
from control.bus import names
from control.bus.app import NOTIFY, PIPELINES
from control.bus.context import Delivery, working_on
from control.errors import Cancelled
from control.ledger import bulks, notices
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.settings import Settings, use
from notify_worker.bulk_sending import send_chunk
from notify_worker.senders import mail_sender
from tests.api_server import Api
from tests.bus import bus, until
from tests.mail import MailServer, mail_server

SPEC = names.SEND_BULK_EMAIL
MESSAGE = {"subject": "Tonight at eight", "text": "Autumn ceramics.\n"}


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server() as made:
        yield made


def paced(settings: Settings, server: MailServer, per_second: float, chunk: int) -> Settings:
    """Settings in use that send mails to `server` so fast."""
    changes = {"mail_url": SecretStr(f"smtp://127.0.0.1:{server.port}"), "mail_from": "shop@example.com"}
    pace = {"bulk_per_second": per_second, "bulk_chunk": chunk}
    made = settings.model_copy(update={"notify": settings.notify.model_copy(update=changes | pace)})
    use(made)
    return made


def asked(number: int, bulk_id: str = "sale", **more: Any) -> dict[str, Any]:
    to = [{"email": f"buyer{each}@example.com"} for each in range(number)]
    return {"id": bulk_id, "locale": "en", "recipients": to, "message": MESSAGE} | more


def create(ledger: Ledger, number: int, bulk_id: str = "sale") -> None:
    content = {"locale": "en", "unsubscribe": None, "html": None} | MESSAGE
    with ledger.write() as session:
        bulks.create(session, bulk_id, content, asked(number)["recipients"])


def counts(ledger: Ledger, bulk_id: str = "sale") -> dict[str, int]:
    with ledger.read() as session:
        return bulks.counts(session, bulk_id)


def planned(ledger: Ledger) -> list[OutboxRow]:
    with ledger.read() as session:
        return list(session.scalars(select(OutboxRow).where(OutboxRow.task == SPEC.name).order_by(OutboxRow.id)))


def send(ledger: Ledger, settings: Settings, task_id: str, check: Any = lambda: None) -> None:
    with working_on(Delivery(task_id, SPEC.name, SPEC.queue, "sale", 1)):
        send_chunk(ledger, "sale", settings.notify, mail_sender(settings.notify), check)


def test_two_hundred_go_out_at_the_pace_and_hold_up_no_other(api: Api, server: MailServer) -> None:
    settings = paced(api.settings, server, per_second=100, chunk=50)
    body = asked(200, unsubscribe="https://shop.example/no-more")
    with bus(settings, modules=(PIPELINES, NOTIFY)):
        begun = time.monotonic()
        answer = api.client.post("/mails/bulk", json=body)
        assert (answer.status_code, answer.json()["total"], answer.headers["location"]) == (
            202,
            200,
            "/mails/bulk/sale",
        )
        until(lambda: len(server.mails) >= 20, "it has begun")
        welcome = {"user_id": "u1", "email": "mei@example.com"}
        api.client.post("/mails/welcome", json=welcome)
        until(lambda: ["mei@example.com"] in server.to, "a single mail goes in between")
        assert len(server.mails) < 200
        until(lambda: api.client.get("/mails/bulk/sale").json()["state"] == "done", "all are sent", 30)
        assert time.monotonic() - begun > 3 * 0.5
    found = api.client.get("/mails/bulk/sale").json()
    assert (found["counts"], found["finished_at"] is not None) == ({"sent": 200}, True)
    to = [one for (one,) in server.to]
    assert len(to) == len(set(to)) == 201
    assert server.mails[0]["List-Unsubscribe"] == "<https://shop.example/no-more>"
    assert server.mails[0]["Subject"] == MESSAGE["subject"]


def test_a_worker_that_ends_hands_the_rest_on(settings: Settings, server: MailServer, ledger: Ledger) -> None:
    made = paced(settings, server, per_second=100, chunk=50)
    create(ledger, 10)
    left = iter(range(4))

    def check() -> None:
        if next(left, None) is None:
            raise Cancelled(key="the worker ends")

    with pytest.raises(Cancelled):
        send(ledger, made, "t1", check)
    assert counts(ledger) == {"sent": 4, "pending": 6}
    send(ledger, made, "t1")
    send(ledger, made, "t1")  # and once more: nothing is left
    assert counts(ledger) == {"sent": 10}
    assert len({one for (one,) in server.to}) == len(server.to) == 10


_DIES = """
import os, sys
from control.bus.context import Delivery, working_on
from control.ledger.engine import Ledger
from control.settings import NotifySettings
from notify_worker.bulk_sending import send_chunk
class Dies:
    sent = 0
    def send(self, mail):
        self.sent += 1
        if self.sent == 4:
            os._exit(9)
settings = NotifySettings(_env_file=None, mail_url="smtp://localhost", bulk_per_second=100, bulk_chunk=50)
with working_on(Delivery("t1", "notify.send_bulk_email", "default", "sale", 1)):
    send_chunk(Ledger(sys.argv[1]), "sale", settings, Dies(), lambda: None)
"""


def test_after_a_worker_was_killed_nobody_gets_it_twice(settings: Settings, server: MailServer, ledger: Ledger) -> None:
    made = paced(settings, server, per_second=100, chunk=50)
    create(ledger, 10)
    died = subprocess.run([sys.executable, "-c", _DIES, ledger.url], check=False, timeout=60)
    assert died.returncode == 9
    assert counts(ledger) == {"sent": 3, "sending": 1, "pending": 6}
    send(ledger, made, "t1")
    assert counts(ledger) == {"sent": 10}
    assert len({one for (one,) in server.to}) == len(server.to) == 7  # the others went to the one that was killed


def test_two_workers_with_one_chunk_send_each_mail_once(settings: Settings, server: MailServer, ledger: Ledger) -> None:
    made = paced(settings, server, per_second=100, chunk=50)
    create(ledger, 20)
    both = [threading.Thread(target=send, args=(ledger, made, "t1")) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(30)
    assert counts(ledger) == {"sent": 20}
    assert len({one for (one,) in server.to}) == len(server.to) == 20


def test_a_server_that_is_away_is_asked_less_and_less(settings: Settings, server: MailServer, ledger: Ledger) -> None:
    made = paced(settings, server, per_second=100, chunk=50)
    create(ledger, 10)
    server.says = {"MAIL": "421 4.3.2 closing"}
    send(ledger, made, "t1")
    assert counts(ledger) == {"pending": 10}
    *_, later = planned(ledger)
    assert 9 < (later.available_at - later.created_at).total_seconds() <= 10
    with ledger.read() as session:
        assert len(bulks.chunk(session, "sale", 10)) == 10
        tries = [notices.load(session, one).attempts for one in bulks.chunk(session, "sale", 10)]
    assert sorted(tries) == [0] * 7 + [1] * 3


def test_one_that_is_refused_keeps_no_other_from_its_mail(
    settings: Settings, server: MailServer, ledger: Ledger
) -> None:
    made = paced(settings, server, per_second=1000, chunk=50)
    create(ledger, 4)
    server.says = {"buyer1@example.com": "550 5.1.1 nobody", "buyer2@example.com": "451 4.7.1 greylisted"}
    send(ledger, made, "t1")
    assert counts(ledger) == {"sent": 2, "bounced": 1, "pending": 1}
    for number in range(bulks.MOST_TRIES - 1):
        time.sleep(0.06)  # the pace
        send(ledger, made, f"again{number}")
    assert counts(ledger) == {"sent": 2, "bounced": 1, "failed": 1}


def test_between_chunks_no_worker_waits_and_a_cancelled_one_goes_no_further(api: Api, server: MailServer) -> None:
    settings = paced(api.settings, server, per_second=5, chunk=5)
    with bus(settings, modules=(PIPELINES, NOTIFY)):
        api.client.post("/mails/bulk", json=asked(40))
        (later,) = until(lambda: len(server.mails) >= 5 and planned(api.ledger), "the first chunk is sent")
        # Until the next is due, it waits in the outbox, and no worker with it.
        assert later.available_at > later.created_at
        until(lambda: telemetry.IN_FLIGHT.labels(SPEC.name)._value.get() == 0, "no worker has it", 0.8)
        assert planned(api.ledger)
        answer = api.client.post("/mails/bulk/sale/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
        until(lambda: "sending" not in counts(api.ledger), "what was being sent is over")
        sent = len(server.mails)
        time.sleep(1.6)  # the next was due after a second
        assert len(server.mails) == sent < 40
    found = api.client.get("/mails/bulk/sale").json()
    assert found["counts"] == {"sent": sent, "cancelled": 40 - sent}


# --- the API ----------------------------------------------------------------------------------------------------------


def test_the_same_again_is_the_same_and_another_is_a_conflict(api: Api) -> None:
    first = api.client.post("/mails/bulk", json=asked(3))
    assert api.client.post("/mails/bulk", json=asked(3)).json() == first.json()
    other = api.client.post("/mails/bulk", json=asked(4))
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert api.client.get("/mails/bulk/none").status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"recipients": []},
        {"recipients": [{"email": "no address"}]},
        {"recipients": [{"email": "a@example.com\nBcc: b@example.com"}]},
        {"recipients": [{"email": "a@example.com, b@example.com"}]},
        {"message": None},
        {"announcement": {"title": "t", "text": "t"}},
        {"message": None, "announcement": {"title": "t", "text": "t", "link": "javascript:alert(1)"}},
        {"unsubscribe": "https://x>\r\nBcc: b"},
        {"locale": "fr"},
    ],
)
def test_what_is_no_bulk_send_is_refused(api: Api, wrong: dict[str, Any]) -> None:
    assert api.client.post("/mails/bulk", json=asked(1) | wrong).status_code == 422


def test_an_announcement_has_the_shops_layout_in_each_readers_language(api: Api, server: MailServer) -> None:
    settings = paced(api.settings, server, per_second=100, chunk=50)
    text = {"title": "Tonight <at> eight", "text": "One.\n\nTwo.", "link": "https://shop.example/live"}
    people = [{"email": "a@example.com", "name": "Ann"}, {"email": "b@example.com", "locale": "zh-TW"}]
    with bus(settings, modules=(PIPELINES, NOTIFY)):
        answer = api.client.post(
            "/mails/bulk", json={"id": "x", "locale": "en", "announcement": text, "recipients": people}
        )
        assert answer.status_code == 202
        until(lambda: len(server.mails) == 2, "both have it")
    english, chinese = sorted(server.mails, key=lambda mail: str(mail["To"]))
    bodies = [mail.get_body(("html",)) for mail in (english, chinese)]
    first, second = (body.get_content() for body in bodies if body)
    assert "Hello Ann," in first
    assert "Tonight &lt;at&gt; eight" in first
    assert 'href="https://shop.example/live"' in second
    assert 'lang="zh-TW"' in second


def test_a_user_is_welcomed_once_and_shown_in_part(api: Api) -> None:
    body = {"user_id": "u1", "email": "mei@example.com", "name": "Mei"}
    first = api.client.post("/mails/welcome", json=body)
    assert api.client.post("/mails/welcome", json=body | {"email": "other@example.com"}).json() == first.json()
    (found,) = api.client.get("/notices", params={"about": "u1"}).json()["items"]
    assert (found["to"], found["state"], found["locale"]) == ("m•••@example.com", "pending", "zh-TW")
    assert api.client.get("/notices", params={"about": "u2"}).json() == {"items": []}
    assert len(api.woken) == 2


def test_where_a_seller_is_told(api: Api) -> None:
    assert api.client.get("/sellers/s1").status_code == 404
    body = {"email": "shop@example.com", "name": "Kiln", "locale": "en"}
    assert api.client.put("/sellers/s1", json=body).json() == body
    api.client.put("/sellers/s1", json=body | {"email": "new@example.com"})
    assert api.client.get("/sellers/s1").json()["email"] == "new@example.com"


def test_an_address_can_be_suppressed_and_that_lifted(api: Api) -> None:
    body = {"email": "mei@example.com", "reason": "complaint"}
    assert api.client.post("/mails/suppressions", json=body).status_code == 204
    api.client.post("/mails/welcome", json={"user_id": "u1", "email": "mei@example.com"})
    with api.ledger.write() as session:
        notice = notices.of_key(session, "welcome:u1")
        assert notices.suppressed(session, notice)
    assert api.client.post("/mails/suppressions/lift", json={"email": "MEI@example.com"}).status_code == 204
    with api.ledger.read() as session:
        assert notices.suppressed(session, notice) is None
