"""One attempt at a webhook: where it goes, how long it may take, what is told of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest
import trustme

from control.ledger.base import now
from control.ledger.webhook_attempts import Attempt, Outcome
from control.settings import WebhookSettings
from notify_worker.webhook_sending import send
from tests.receiver import Receiver, receiver
from tests.services import free_port

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
PUBLIC = "203.69.66.102"


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def attempt(url: str) -> Attempt:
    return Attempt("whd_1", "whe_1", "evt_1", url, '{"type":"order.paid"}', (SECRET,), now())


def settings(**changes: Any) -> WebhookSettings:
    return WebhookSettings(_env_file=None, **changes)


LOCAL: dict[str, Any] = {"allow_private": True, "allow_http": True}


def test_without_permission_nothing_private_is_connected_to(there: Receiver) -> None:
    here = f"http://shop.example:{there.port}/hook"
    for url, answers in (
        (there.url(), ["127.0.0.1"]),
        (there.url(host="localhost"), ["127.0.0.1"]),
        (here, ["127.0.0.1"]),
        (here, ["::ffff:127.0.0.1"]),
        (here, [PUBLIC, "127.0.0.1"]),  # one among others
        (here, ["169.254.169.254"]),
    ):
        made = send(attempt(url), settings(allow_http=True), look_up=lambda *_, found=answers: found)
        assert made == Outcome(problem="The webhook's URL is refused: its host is in a private network.")
    assert there.got == []
    made = send(attempt(there.url()), settings(allow_private=True))
    assert made.problem == "The webhook's URL is refused: it does not start with https://."


def test_what_was_checked_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that says otherwise the next time is not asked again."""
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    connected: list[str] = []

    def connect(_self: Any, host: str, *_: Any) -> Any:
        connected.append(host)
        raise httpcore.ConnectError

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    send(attempt("https://shop.example/"), settings(), look_up=lambda *_: next(answers))
    assert connected == [PUBLIC]


def test_tls_and_host_keep_the_name(authority: trustme.CA, ca_file: Path) -> None:
    asked: list[tuple[str, int]] = []

    def look_up(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    given = settings(allow_private=True, ca_file=ca_file)
    with receiver(signed_by=authority, name="shop.example") as there:
        assert send(attempt(there.url(host="shop.example")), given, look_up=look_up).delivered
        there.got[0].verified(SECRET)
        assert there.got[0].headers["host"] == f"shop.example:{there.port}"
        assert asked == [("shop.example", there.port)]
        other = send(attempt(there.url(host="other.example")), given, look_up=look_up)
        assert str(other.problem).startswith("its certificate is not accepted: ")
        strange = send(attempt(there.url(host="shop.example")), settings(allow_private=True), look_up=look_up)
        assert str(strange.problem).startswith("its certificate is not accepted: ")
        assert len(there.got) == 1


def test_the_next_address_is_tried(there: Receiver) -> None:
    given = settings(**LOCAL)
    answers = ["127.0.0.2", "127.0.0.1"]  # the receiver listens on one of them
    made = send(attempt(there.url(host="shop.example")), given, look_up=lambda *_: answers)
    assert made.delivered


def test_a_redirect_is_not_followed(there: Receiver) -> None:
    there.answers = [302, 307]
    there.headers = {"Location": there.url("/elsewhere")}
    for status in (302, 307):
        made = send(attempt(there.url()), settings(**LOCAL))
        assert made == Outcome(status, f"it answered {status}, and redirects are not followed")
        assert not made.delivered
    assert {one.path for one in there.got} == {"/hook"}


def test_it_takes_only_so_long_whatever_the_receiver_does(there: Receiver) -> None:
    given = settings(**LOCAL, total_seconds=0.3)
    there.drips = True  # never silent for long
    started = time.monotonic()
    assert send(attempt(there.url()), given).problem == "it did not answer within 0.3 s"
    there.drips = False
    there.held.clear()
    assert send(attempt(there.url()), given).problem == "it did not answer within 0.3 s"
    assert time.monotonic() - started < 3


def test_a_long_answer_is_not_read(there: Receiver) -> None:
    there.headers = {"Content-Length": str(10**9)}
    there.body = b"x" * 100_000
    assert send(attempt(there.url()), settings(**LOCAL, total_seconds=3)) == Outcome(200)


def test_what_is_told_is_in_our_own_words(there: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    given = settings(**LOCAL)
    there.answers, there.body = [503], b"the-secret-answer"
    assert send(attempt(there.url("/the-secret-path")), given) == Outcome(503, "it answered 503")
    closed = f"http://127.0.0.1:{free_port()}/the-secret-path"
    assert send(attempt(closed), given).problem == "it cannot be reached (ConnectionRefusedError)"
    nowhere = send(attempt("http://nowhere.invalid/the-secret-path"), given)
    assert nowhere.problem == "its host has no address"
    plain = send(attempt(f"https://127.0.0.1:{there.port}/the-secret-path"), given)
    assert plain.problem == "it does not speak TLS"
    assert "secret" not in caplog.text
    assert "secret" not in repr(attempt(closed))
    assert SECRET not in repr(attempt(closed))
