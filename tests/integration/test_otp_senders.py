"""Providers over the wire: what they are sent, and what their answers mean."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from control.errors import ProviderRefused, RecipientRefused, SenderRefused, SenderUnavailable
from control.settings import NotifySettings
from notify_worker.senders.sms import sms_sender
from notify_worker.senders.sms.http import HttpSender
from notify_worker.senders.sms.sns import SnsSender
from tests.services import free_port
from tests.sms import TOKEN, Provider, provider

PHONE, TEXT = "+886912345678", "【Afterlive】驗證碼 042917 & {to}"


@pytest.fixture
def server() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture
def sns(server: Provider, monkeypatch: pytest.MonkeyPatch) -> SnsSender:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "only-for-tests")
    return SnsSender("ap-northeast-1", server.endpoint)


def test_sns_publishes_to_the_number_and_first(sns: SnsSender, server: Provider) -> None:
    assert sns.send(PHONE, TEXT, "k") == "sns-1"
    (message,) = server.messages
    assert (message.fields["Action"], message.fields["PhoneNumber"]) == ("Publish", PHONE)
    assert message.fields["Message"] == TEXT
    attribute = {
        name.rpartition(".")[2]: value for name, value in message.fields.items() if "MessageAttributes" in name
    }
    assert attribute["Name"] == "AWS.SNS.SMS.SMSType"
    assert attribute["StringValue"] == "Transactional"
    assert "Credential=AKIDEXAMPLE/" in message.headers["authorization"]
    assert "/ap-northeast-1/sns/" in message.headers["authorization"]


def test_what_sns_says_is_final_or_not(sns: SnsSender, server: Provider) -> None:
    said: list[tuple[int, str, type[Exception]]] = [
        (400, "InvalidParameter", RecipientRefused),
        (400, "OptedOut", RecipientRefused),
        (403, "AuthorizationError", ProviderRefused),
        (403, "InvalidClientTokenId", ProviderRefused),
        (400, "Throttling", SenderUnavailable),
        (429, "ThrottledException", SenderUnavailable),
        (500, "InternalError", SenderUnavailable),
        (503, "", SenderUnavailable),
    ]
    for number, (status, code, expected) in enumerate(said, 1):
        server.status, server.error = status, code
        with pytest.raises(expected) as caught:
            sns.send(PHONE, TEXT, "k")
        assert type(caught.value) is expected, code
        assert PHONE not in str(caught.value)
        assert server.asked == number  # the task tries again, not the client


def test_sns_that_is_not_there_or_does_not_know_us(monkeypatch: pytest.MonkeyPatch, server: Provider) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with pytest.raises(SenderUnavailable):
        SnsSender("us-east-1", f"http://127.0.0.1:{free_port()}").send(PHONE, TEXT, "k")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    with pytest.raises(ProviderRefused, match="no credentials"):
        SnsSender("us-east-1", server.endpoint).send(PHONE, TEXT, "k")


def test_a_provider_of_the_common_kind_gets_json_and_the_token(server: Provider) -> None:
    assert HttpSender(server.url, {"to": "{to}", "text": "{text}"}).send(PHONE, TEXT, "otp_1-ab") == "m-1"
    (message,) = server.messages
    assert message.fields == {"to": PHONE, "text": TEXT}
    assert message.headers["authorization"] == f"Bearer {TOKEN}"
    assert message.headers["idempotency-key"] == "otp_1-ab"


def test_or_a_form_of_its_own_fields(server: Provider) -> None:
    fields = {"dstaddr": "{digits}", "smbody": "{text}", "username": "shop", "clientid": "x-{key}"}
    sender = HttpSender(server.endpoint + "/send", fields, "form", "msgid")
    assert sender.send(PHONE, TEXT, "k") == "k"  # its answer has no such field
    (message,) = server.messages
    expected = {"dstaddr": "886912345678", "smbody": TEXT, "username": "shop", "clientid": "x-k"}
    assert message.fields == expected
    assert "authorization" not in message.headers


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (500, SenderUnavailable), (503, SenderUnavailable), (429, SenderUnavailable), (408, SenderUnavailable),
        (401, ProviderRefused), (402, ProviderRefused), (404, ProviderRefused), (302, ProviderRefused),
        (400, SenderRefused), (422, SenderRefused),
    ],
)  # fmt: skip
def test_what_a_provider_says_is_final_or_not(server: Provider, status: int, expected: type[Exception]) -> None:
    server.status = status
    with pytest.raises(expected) as caught:
        HttpSender(server.url, {"to": "{to}"}).send(PHONE, TEXT, "k")
    assert type(caught.value) is expected
    assert str(caught.value).endswith(f"127.0.0.1:{server.port} said {status}.")


def test_a_dead_provider_costs_messages_nothing_but_the_first(server: Provider) -> None:
    """One that is silent, in front of one that answers."""
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)  # it takes connections, and says nothing
        urls = [f"http://127.0.0.1:{silent.getsockname()[1]}/", server.url]
        sender = sms_sender(NotifySettings(_env_file=None, sms_urls=[SecretStr(url) for url in urls]))
        started = time.monotonic()
        sender.send(PHONE, TEXT, "k")
        first = time.monotonic() - started
        assert 3 < first < 10
        for _ in range(5):
            sender.send(PHONE, TEXT, "k")
        assert time.monotonic() - started - first < 2  # each alone would have taken 4 s
    assert len(server.messages) == 6
