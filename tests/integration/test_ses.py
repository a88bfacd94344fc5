"""The SES sender and a server that speaks its API."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from control.errors import AfterliveError, ConfigurationError, RecipientRefused, SenderRefused, SenderUnavailable
from control.settings import NotifySettings
from notify_worker.senders import Mail, mail_sender

MAIL = Mail(("mei@example.com",), "秋", "text\n", "<1@example.com>", html="<p>秋</p>")


@dataclass
class Ses:
    """What it was asked, and what it answers instead of yes."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    says: tuple[int, str] | None = None


@pytest.fixture
def ses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ses]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-for-tests")
    made = Ses()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.paths.append(self.path)
            made.asked.append(json.loads(body))
            status, code = made.says or (200, "")
            answer = {"message": "mei@example.com is not liked"} if code else {"MessageId": "0100-ses"}
            told = json.dumps(answer).encode()
            self.send_response(status)
            if code:
                self.send_header("x-amzn-ErrorType", code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join(5)


def send(ses: Ses, **changes: Any) -> str | None:
    options: dict[str, Any] = {"mail_url": SecretStr("ses:ap-northeast-1"), "mail_from": "Kiln <shop@example.com>"}
    settings = NotifySettings(_env_file=None, **({"ses_endpoint": ses.url} | options | changes))
    return mail_sender(settings).send(MAIL)


def test_a_mail_as_it_comes_to_ses(ses: Ses) -> None:
    assert send(ses, ses_configuration_set="bounces") == "0100-ses"
    (asked,) = ses.asked
    assert ses.paths == ["/v2/email/outbound-emails"]
    assert asked["Destination"] == {"ToAddresses": ["mei@example.com"]}
    assert (asked["FromEmailAddress"], asked["ConfigurationSetName"]) == ("Kiln <shop@example.com>", "bounces")
    made = message_from_bytes(base64.b64decode(asked["Content"]["Raw"]["Data"]), policy=default)
    assert (made["Subject"], made["Message-ID"], made.get_content_type()) == (
        "秋",
        "<1@example.com>",
        "multipart/alternative",
    )


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ((400, "MessageRejected"), SenderRefused),
        ((400, "BadRequestException"), SenderRefused),
        ((429, "TooManyRequestsException"), SenderUnavailable),
        ((400, "SendingPausedException"), SenderUnavailable),
        ((500, "InternalServiceError"), SenderUnavailable),
        ((403, "SignatureDoesNotMatch"), ConfigurationError),
        ((400, "MailFromDomainNotVerifiedException"), ConfigurationError),
    ],
)
def test_what_its_answers_mean(ses: Ses, says: tuple[int, str], expected: type[AfterliveError]) -> None:
    ses.says = says
    with pytest.raises(expected) as caught:
        send(ses)
    assert not isinstance(caught.value, RecipientRefused)
    assert len(ses.asked) == 1  # whether it is tried again, the ledger decides
    assert "mei@" not in str(caught.value)


def test_a_server_that_is_not_there_may_come_back(ses: Ses) -> None:
    with pytest.raises(SenderUnavailable):
        send(ses, ses_endpoint="http://127.0.0.1:9")
