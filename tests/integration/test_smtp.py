"""The SMTP sender and a real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from control.errors import AfterliveError, SenderRefused, SenderUnavailable
from notify_worker.senders import Mail
from notify_worker.senders.smtp import SmtpSender
from tests.mail import PASSWORD, USER, MailServer, mail_server
from tests.services import free_port

LOGIN = f"{USER}:{quote(PASSWORD, safe='')}@"
MAIL = Mail(("ops@example.com", "night@example.com"), "2 × 失敗", "first\n.\n..last", "<1@example.com>")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server() as made:
        yield made


def sender(server: MailServer, *, scheme: str = "smtp", login: str = "", ca_file: Path | None = None) -> SmtpSender:
    return SmtpSender(f"{scheme}://{login}localhost:{server.port}", "afterlive@example.com", ca_file)


def test_plain_where_the_server_has_no_more_to_offer(server: MailServer) -> None:
    sender(server).send(MAIL)
    (got,) = server.mails
    assert server.to == [["ops@example.com", "night@example.com"]]
    assert (got["From"], got["Subject"], got["Message-ID"]) == ("afterlive@example.com", "2 × 失敗", "<1@example.com>")
    assert got.get_content().split() == ["first", ".", "..last"]
    assert server.secure == [False]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # it is TLS from the start
@pytest.mark.parametrize("from_the_start", [False, True], ids=["starttls", "smtps"])
def test_by_tls_with_a_password(authority: trustme.CA, ca_file: Path, from_the_start: bool) -> None:
    scheme = "smtps" if from_the_start else "smtp"
    with mail_server(signed_by=authority, tls_from_the_start=from_the_start, authenticated=True) as server:
        sender(server, scheme=scheme, login=LOGIN, ca_file=ca_file).send(MAIL)
        assert len(server.mails) == 1
        assert server.secure == [True]
        assert server.users == [USER]


@pytest.mark.parametrize("from_the_start", [False, True], ids=["starttls", "smtps"])
def test_a_certificate_somebody_else_signed_is_not_accepted(authority: trustme.CA, from_the_start: bool) -> None:
    scheme = "smtps" if from_the_start else "smtp"
    with mail_server(signed_by=authority, tls_from_the_start=from_the_start) as server:
        with pytest.raises(SenderUnavailable, match="certificate is not accepted"):
            sender(server, scheme=scheme, login=LOGIN).send(MAIL)
        assert server.mails == []
        assert server.users == []


def test_a_certificate_of_another_host_is_not_accepted(authority: trustme.CA, ca_file: Path) -> None:
    with mail_server(signed_by=authority) as server:
        other = SmtpSender(f"smtp://127.0.0.1:{server.port}", "afterlive@example.com", ca_file)
        with pytest.raises(SenderUnavailable, match="certificate is not accepted"):
            other.send(MAIL)
        assert server.mails == []


def test_no_password_goes_where_there_is_no_tls(server: MailServer) -> None:
    """Whoever sits in between may have taken the offer of TLS out."""
    with pytest.raises(SenderRefused, match="no TLS"):
        sender(server, login=LOGIN).send(MAIL)
    assert server.users == []
    assert server.mails == []


def test_a_wrong_password_is_final(authority: trustme.CA, ca_file: Path) -> None:
    with mail_server(signed_by=authority, authenticated=True) as server:
        with pytest.raises(SenderRefused, match="535") as caught:
            sender(server, login=f"{USER}:wrong-word@", ca_file=ca_file).send(MAIL)
        assert "wrong-word" not in str(caught.value)
        server.says["AUTH"] = "454 4.7.0 Temporary authentication failure"
        with pytest.raises(SenderUnavailable, match="454"):
            sender(server, login=LOGIN, ca_file=ca_file).send(MAIL)


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ({"MAIL": "451 4.3.0 try again later"}, SenderUnavailable),
        ({"MAIL": "550 5.7.1 not you"}, SenderRefused),
        ({"DATA": "452 4.2.2 no room"}, SenderUnavailable),
        ({"DATA": "554 5.6.0 not this"}, SenderRefused),
        ({"ops@example.com": "450 4.2.1 greylisted", "night@example.com": "450 4.2.1 greylisted"}, SenderUnavailable),
        ({"ops@example.com": "550 5.1.1 unknown", "night@example.com": "450 4.2.1 greylisted"}, SenderUnavailable),
        ({"ops@example.com": "550 5.1.1 unknown", "night@example.com": "553 5.1.3 unknown"}, SenderRefused),
    ],
)
def test_what_the_server_says(server: MailServer, says: dict[str, str], error: type[AfterliveError]) -> None:
    server.says.update(says)
    with pytest.raises(error) as caught:
        sender(server).send(MAIL)
    assert any(text[:3] in caught.value.detail for text in says.values())
    assert server.mails == []


def test_one_recipient_that_is_refused_does_not_keep_it_from_the_other(
    server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.says["ops@example.com"] = "550 5.1.1 unknown"
    sender(server).send(MAIL)
    assert server.to == [["night@example.com"]]
    assert "refused for 1 of 2 recipients: [550]" in caplog.text


def test_a_server_that_ends_rudely_has_the_mail_all_the_same(server: MailServer) -> None:
    """Sent again it would come twice."""
    server.says["QUIT"] = "421 4.3.2 going down"
    sender(server).send(MAIL)
    assert len(server.mails) == 1


def test_a_server_that_is_away_may_come_back() -> None:
    with pytest.raises(SenderUnavailable, match="ConnectionRefusedError"):
        SmtpSender(f"smtp://127.0.0.1:{free_port()}", "afterlive@example.com").send(MAIL)


def test_a_server_that_hangs_up_or_talks_nonsense_may_come_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def answer(words: bytes) -> None:
            with listening.accept()[0] as connection:
                connection.sendall(words)

        for words in (b"", b"nonsense\r\n"):
            thread = threading.Thread(target=answer, args=[words])
            thread.start()
            with pytest.raises(SenderUnavailable):
                SmtpSender(f"smtp://127.0.0.1:{port}", "afterlive@example.com").send(MAIL)
            thread.join()


def test_no_header_and_no_recipient_comes_in_by_the_back_door(server: MailServer) -> None:
    sender(server).send(
        Mail(
            ("ops@example.com",),
            "a\r\nBcc: thief@example.com\r\n\r\nbody",
            "a\r\n.\r\nRCPT TO:<thief@example.com>",
            "<1@x>",
        )
    )
    for address in ("ops@example.com\r\nBcc: thief@example.com", "ops@example.com>\r\nRCPT TO:<thief@example.com"):
        with pytest.raises(SenderRefused):
            sender(server).send(Mail((address,), "s", "t", "<2@x>"))
    (got,) = server.mails
    assert got["Bcc"] is None
    assert got["Subject"] == "a Bcc: thief@example.com body"
    assert "RCPT TO:<thief@example.com>" in got.get_content()
    assert server.to == [["ops@example.com"]]


def test_an_address_the_server_cannot_take_is_final(server: MailServer) -> None:
    """One that needs SMTPUTF8, of a server without."""
    with pytest.raises(SenderRefused):
        sender(server).send(Mail(("操作@example.com",), "s", "t", "<1@x>"))
