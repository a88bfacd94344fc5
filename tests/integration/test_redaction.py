"""One whole shopping trip, with all that can go wrong with its messages: and nothing that is a person's or a secret is
anywhere but where it belongs. Logs at their most talkative, the bus, results, failures, metrics, events."""

from __future__ import annotations

import base64
import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from celery.backends import cache
from prometheus_client import generate_latest
from pydantic import SecretStr
from sqlalchemy import Engine, MetaData, event, select

from control.api.app import create_app
from control.bus import outcome
from control.bus.app import NOTIFY, PIPELINES
from control.bus.memory import Channel
from control.ledger import failures
from control.ledger.engine import Ledger
from control.ledger.models import Stream
from control.ledger.task_models import FailedTask, TaskRow
from control.settings import NotifySettings, OtpSettings, Settings, WebhookSettings
from control.storage import LocalStore
from tests.api_server import serving
from tests.bus import bus, until
from tests.conftest import API_KEY
from tests.ecpay import MERCHANT, FakeEcpay, fake_ecpay, payment_settings
from tests.integration.test_cli_failed import Command
from tests.mail import MailServer, mail_server
from tests.receiver import Receiver, receiver
from tests.sms import TOKEN, Provider, provider

OTP_SECRET: Final = "secret-that-hides-codes"
PHONES: Final = ("912345678", "987654321", "955111222")
"""Without country code and 0; whose code comes, whose is refused, and who asks while the provider is away."""
BUYER, REFUSED, AWAY = "mei.lin@buyer.example", "nobody@refused.example", "later@away.example"
SELLER, ADMIN = "kiln@seller.example", "ops@admin.example"
HOLDERS: Final = frozenset({"orders", "notices", "contacts", "webhook_endpoints"})
"""Tables that have to have what they have: whom to write to, and what to sign with."""

_OTHERS: Final = frozenset({"mail.log", "mail.debug"})
"""Loggers of the mail server, which is not ours."""


class Ears(logging.Handler):
    """Whatever is logged, by anybody, at any level."""

    def __init__(self, restore: ExitStack) -> None:
        super().__init__(logging.NOTSET)
        self.heard: list[str] = []
        self._restore = restore

    def emit(self, record: logging.LogRecord) -> None:
        if record.name in _OTHERS:
            return
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else record.exc_text or ""
        more = {name: value for name, value in vars(record).items() if name not in ("msg", "exc_info")}
        self.heard.append(f"{record.name} {record.getMessage()} {record.msg!r} {more!r} {trace}")

    def listen(self) -> None:
        """To all loggers there are by now."""
        known = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
        for logger in [logging.root, *known]:
            self._restore.callback(logger.setLevel, logger.level)
            # At DEBUG it logs rows, whole: it never does unless somebody asks it by name. Statements are enough.
            logger.setLevel(logging.INFO if logger.name.startswith("sqlalchemy") else logging.DEBUG)
            if (logger is logging.root or not logger.propagate) and self not in logger.handlers:
                logger.addHandler(self)
                self._restore.callback(logger.removeHandler, self)


@pytest.fixture
def ears() -> Iterator[Ears]:
    with ExitStack() as restore:
        made = Ears(restore)
        made.listen()
        yield made


class Trip:
    """The platform's back end and all it talks to."""

    def __init__(self, client: httpx.Client, ledger: Ledger) -> None:
        self.client, self.ledger = client, ledger

    def do(self, method: str, path: str, body: Any = None, *, or_else: int | None = None) -> Any:
        answer = self.client.request(method, path, json=body)
        assert answer.is_success or answer.status_code == or_else, answer.text
        return answer.json()

    def codes_of_failures(self) -> list[str]:
        with self.ledger.read() as session:
            return sorted(session.scalars(select(FailedTask.code)))

    def fails(self, count: int) -> None:
        until(lambda: len(self.codes_of_failures()) == count, f"{count} tasks have failed finally", 30)


def log_in(trip: Trip, sms: Provider) -> str:
    """One gets a code, one is refused, and for one the provider is away."""
    asked = trip.do("POST", "/otp", {"phone": f"0{PHONES[0]}", "purpose": "login", "ip": "203.0.113.7"})
    until(lambda: sms.messages, "a text message")
    (code,) = re.findall(r"\b[0-9]{6}\b", sms.messages[0].fields["text"])
    other = f"{(int(code) + 1) % 1_000_000:06}"
    wrong = trip.client.post("/otp/verify", json={"otp_id": asked["otp_id"], "code": other})
    assert wrong.status_code == 422
    assert trip.do("POST", "/otp/verify", {"otp_id": asked["otp_id"], "code": code})["verified"]
    sms.status = 422
    trip.do("POST", "/otp", {"phone": f"0{PHONES[1]}", "purpose": "login"})
    trip.fails(1)
    sms.status = 503
    trip.do("POST", "/otp", {"phone": f"+886{PHONES[2]}", "purpose": "login"})
    trip.fails(2)
    sms.status = 200
    return str(code)


def buy(trip: Trip, fake: FakeEcpay, hooks: list[Receiver]) -> list[str]:
    """Order, pay, be told; the secrets this makes."""
    trip.do("PUT", "/sellers/seller-42", {"email": SELLER})
    hooks[1].answers = [500] * 20
    told = [trip.do("POST", "/webhook-endpoints", {"url": one.url(), "events": ["order.paid"]}) for one in hooks]
    stream = trip.do("POST", "/streams", {"title": "Autumn ceramics", "seller_id": "seller-42"})["id"]
    product = {"seller_id": "seller-42", "name": "Bowl", "price_minor": 129900, "stock": 3, "stream_id": stream}
    lines = [{"product_id": trip.do("POST", "/products", product)["id"], "quantity": 1}]
    order = trip.do(
        "POST",
        "/orders",
        {"buyer_id": "buyer-7", "buyer_email": BUYER, "buyer_phone": f"0{PHONES[0]}", "lines": lines},
    )["id"]

    def state() -> str:
        return str(trip.do("GET", f"/orders/{order}")["state"])

    until(lambda: state() == "reserved", "stock is kept")
    opened = trip.do("POST", f"/orders/{order}/payments")
    assert fake.submit(opened["form"]).is_success
    fake.press(opened["payment"]["trade_no"], "pay")
    until(lambda: state() == "confirmed", "it is paid and confirmed")

    def delivered(endpoint: Any) -> str:
        page = trip.do("GET", f"/webhook-endpoints/{endpoint['id']}/deliveries")["items"]
        return str(page[0]["state"]) if page else ""

    until(lambda: [delivered(one) for one in told] == ["delivered", "failed"], "webhooks got there, or failed", 20)
    trip.do("POST", f"/streams/{stream}/end", {"recording": "a.mp4"})
    trip.do("POST", f"/streams/{stream}/cancel", or_else=409)  # where it has failed already: it is no recording
    marks = [opened["form"]["fields"]["CheckMacValue"]]
    return [*marks, *(one["secret"] for one in told)]


def write_mails(trip: Trip, mails: MailServer) -> None:
    """One is refused, and for one the server is away."""
    mails.says[REFUSED] = f"550 5.1.1 <{REFUSED}>: no such person"
    trip.do("POST", "/mails/welcome", {"user_id": "u1", "email": REFUSED, "name": "N"})
    mails.says[AWAY] = f"451 4.3.0 <{AWAY}>: come back later"
    trip.do("POST", "/mails/welcome", {"user_id": "u2", "email": AWAY, "name": "L"})


def test_nobody_and_no_secret_is_known_from_what_is_told(
    settings: Settings, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch, ears: Ears, tmp_path: Path
) -> None:
    monkeypatch.setattr(outcome, "backoff_seconds", lambda *_: 0.0)
    monkeypatch.setattr(failures, "_GATHER", failures._GATHER / 10)
    messages, payloads = list[str](), list[str]()
    put = Channel._put

    def overheard(self: Channel, queue: str, message: Any, **kwargs: Any) -> None:
        body = base64.b64decode(message["body"]).decode(errors="replace")
        messages.append(f"{queue} {message} {body}")
        put(self, queue, message, **kwargs)

    monkeypatch.setattr(Channel, "_put", overheard)

    def planned(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("INSERT INTO outbox"):
            payloads.append(repr(parameters))

    event.listen(Engine, "before_cursor_execute", planned)
    (settings.media.recording_roots[0] / "a.mp4").write_bytes(b"no film")
    with provider() as sms, mail_server() as mails, receiver() as hook, receiver() as bad_hook, fake_ecpay() as fake:
        made = _settings(settings, sms, mails, fake)
        with bus(made, modules=(PIPELINES, NOTIFY)) as running:
            app = create_app(made, running.ledger, local_store, wake=running.relay.wake)
            with serving(app) as url, httpx.Client(base_url=url, headers={"X-API-Key": API_KEY}, timeout=20) as client:
                ears.listen()
                trip = Trip(client, running.ledger)
                code = log_in(trip, sms)
                made_secrets = buy(trip, fake, [hook, bad_hook])
                write_mails(trip, mails)
                until(lambda: len(trip.codes_of_failures()) >= 3, "the mail has failed finally", 30)
                until(lambda: [ADMIN] in mails.to, "the administrators are told", 30)
                kept, notices = _ledger(running.ledger), repr(fake.told)
                places = _shown(trip)
            results = repr(list(vars(cache)["_DUMMY_CLIENT_CACHE"].items()))
    event.remove(Engine, "before_cursor_execute", planned)
    marks: list[str] = re.findall(r"CheckMacValue['\"]?: ?['\"]([0-9A-F]{64})", notices)
    admin = [str(mail) for mail, to in zip(mails.mails, mails.to, strict=True) if to == [ADMIN]]
    told = {
        "logs": "\n".join(ears.heard), "bus": "\n".join(messages), "outbox": "\n".join(payloads),
        "results": results, "worker metrics": generate_latest().decode(), "administrators": "\n".join(admin),
        **{f"table {name}": text for name, text in kept.items() if name not in HOLDERS},
        **places, **_command(made, tmp_path),
    }  # fmt: skip
    _is_told(told)
    assert marks
    secrets = [*PHONES, BUYER, REFUSED, AWAY, SELLER, API_KEY, MERCHANT.hash_key, MERCHANT.hash_iv, OTP_SECRET]
    secrets += [TOKEN, TOKEN.replace("/", "%2F").replace(":", "%3A"), *made_secrets, *marks]
    secrets += [secret.removeprefix("whsec_") for secret in made_secrets if secret.startswith("whsec_")]
    spaced = [f"{phone[:3]} {phone[3:6]} {phone[6:]}" for phone in PHONES]
    found = {
        f"{place}: {secret}: …{text[max(0, at - 300) : at + 100]}…"
        for place, text in told.items()
        for secret in [*secrets, *spaced]
        if (at := text.find(secret)) >= 0
    }
    for place, text in told.items():
        if hit := re.search(rf"(?<![0-9a-zA-Z.-]){code}(?![0-9a-zA-Z.-])", text):
            found.add(f"{place}: the code: …{text[max(0, hit.start() - 300) : hit.end() + 100]}…")
    assert not found, "\n\n".join(sorted(found))


def _settings(settings: Settings, sms: Provider, mails: MailServer, fake: FakeEcpay) -> Settings:
    notify = NotifySettings(
        _env_file=None,
        admins=[ADMIN],
        mail_url=SecretStr(f"smtp://127.0.0.1:{mails.port}"),
        sms_urls=[SecretStr(sms.url)],
    )
    hooks = WebhookSettings(_env_file=None, allow_private=True, allow_http=True, retry_seconds=[0.05, 0.05])
    otp = OtpSettings(_env_file=None, secret=SecretStr(OTP_SECRET))
    payment = payment_settings(fake.url)
    return settings.model_copy(update={"notify": notify, "webhook": hooks, "otp": otp, "payment": payment})


def _ledger(ledger: Ledger) -> dict[str, str]:
    """All that is in it, by table."""
    tables = MetaData()
    with ledger.read() as session:
        connection = session.connection()
        tables.reflect(connection)
        return {
            table.name: "\n".join(repr(tuple(row)) for row in connection.execute(select(table)))
            for table in tables.sorted_tables
        }


def _shown(trip: Trip) -> dict[str, str]:
    """What the API tells operators."""
    with trip.ledger.read() as session:
        failed, tasks = list(session.scalars(select(FailedTask.id))), list(session.scalars(select(TaskRow.id)))
        keys = set(session.scalars(select(TaskRow.key).where(TaskRow.key.is_not(None))))
        streams = list(session.scalars(select(Stream.id)))
    paths = ["/metrics", "/failed-tasks?state=all", *(f"/failed-tasks/{one}" for one in failed)]
    paths += [*(f"/tasks/{one}" for one in tasks), *(f"/tasks?key={one}" for one in keys)]
    paths += [f"/streams/{one}/events" for one in streams]
    return {path: trip.client.get(path).text for path in paths}


def _command(settings: Settings, folder: Path) -> dict[str, str]:
    """What the command line tells of a failed task."""
    afterlive = Command(settings.ledger.url, folder)
    ledger = Ledger(settings.ledger.url)
    with ledger.read() as session:
        failed = session.scalars(select(FailedTask.id)).all()
    ledger.close()
    said = [afterlive("failed", "show", failed[0]), afterlive("failed", "show", failed[-1], "--json")]
    return {f"command {number}": one.stdout + one.stderr for number, one in enumerate(said)}


def _is_told(told: dict[str, str]) -> None:
    """The places looked into have what is told there, or nothing is shown by their silence."""
    assert "notify.send_otp_sms" in told["bus"]
    assert "otp_id" in told["outbox"]
    assert "sender-refused" in told["table failed_tasks"]
    assert "sender-unavailable" in told["table failed_tasks"]
    assert "afterlive_sms_sends_total" in told["worker metrics"]
    assert "sender-" in told["command 0"]
    assert told["table tasks"]
    assert told["table events"]
    assert any(name in told["logs"] for name in ("celery", "kombu"))
