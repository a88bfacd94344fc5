"""Providers in order: which is asked, which comes last for a while, what an error means; and the texts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from control.errors import (
    AfterliveError,
    ConfigurationError,
    ProviderRefused,
    SenderRefused,
    SenderUnavailable,
)
from control.ledger.base import now
from control.ledger.otp import ToSend
from control.settings import NotifySettings, Settings
from notify_worker.senders.sms import FailoverSender, sms_sender
from notify_worker.tasks.sms import text_of

PHONE, TEXT = "+886912345678", "042917 is your code"
# GSM 03.38, as far as the texts need it: anything else makes a message of 70 characters of one of 160.
_GSM = set("@£$¥ !\"#%&'()*+,-./0123456789:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\n")
OURS = ProviderRefused(channel="text message", reason="401")
AWAY = SenderUnavailable(channel="text message", reason="503")


class Scripted:
    """Answers as it is told to, by a clock of the test's."""

    def __init__(self, name: str, clock: list[float], answer: Exception | str = "m", seconds: float = 0.0) -> None:
        self.name, self.answer, self.seconds, self.clock = name, answer, seconds, clock
        self.asked = 0

    def send(self, to: str, text: str, key: str) -> str:  # noqa: ARG002  (the Protocol's)
        self.asked += 1
        self.clock[0] += self.seconds
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def two(**first: Any) -> tuple[FailoverSender, Scripted, Scripted, list[float]]:
    clock = [0.0]
    one, other = Scripted("one", clock, **first), Scripted("other", clock)
    return FailoverSender([one, other], lambda: clock[0]), one, other, clock


def test_one_that_was_away_comes_last_for_a_while_and_is_tried_by_one_message() -> None:
    sender, one, other, clock = two(answer=AWAY, seconds=4)
    for _ in range(5):
        assert sender.send_by(PHONE, TEXT, "k") == ("other", "m")
    assert (one.asked, other.asked) == (1, 5)  # the dead one cost its time-out once
    clock[0] += 16
    assert [sender.send_by(PHONE, TEXT, "k")[0] for _ in range(3)] == ["other"] * 3
    assert one.asked == 2
    clock[0] += 16
    one.answer = "back"
    assert [sender.send_by(PHONE, TEXT, "k")[0] for _ in range(3)] == ["one"] * 3


def test_where_all_were_away_they_are_tried_all_the_same() -> None:
    sender, one, other, _ = two(answer=AWAY)
    other.answer = AWAY
    for _ in range(3):
        with pytest.raises(SenderUnavailable):
            sender.send(PHONE, TEXT, "k")
    assert (one.asked, other.asked) == (3, 3)
    other.answer = "m"
    assert sender.send_by(PHONE, TEXT, "k")[0] == "other"


@pytest.mark.parametrize(
    ("answers", "expected", "asked"),
    [
        ([SenderRefused(channel="x", reason="no such number"), "m"], SenderRefused, [1, 0]),
        ([OURS, "m"], None, [1, 1]),
        ([OURS, OURS], ProviderRefused, [1, 1]),
        ([OURS, AWAY], SenderUnavailable, [1, 1]),
        ([AWAY, OURS], SenderUnavailable, [1, 1]),
        ([ValueError(PHONE), "m"], None, [1, 1]),
        ([ValueError(PHONE), ValueError(TEXT)], ProviderRefused, [1, 1]),
    ],
)  # fmt: skip
def test_what_another_provider_may_take_it_is_given(
    answers: list[Any], expected: type[AfterliveError] | None, asked: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    sender, one, other, _ = two(answer=answers[0])
    other.answer = answers[1]
    if expected is None:
        assert sender.send(PHONE, TEXT, "k") == "m"
    else:
        with pytest.raises(expected) as caught:
            sender.send(PHONE, TEXT, "k")
        assert type(caught.value) is expected
        assert PHONE not in str(caught.value) + caplog.text
        assert TEXT not in str(caught.value) + caplog.text
    assert [one.asked, other.asked] == asked


def test_no_provider_is_begun_with_when_the_time_is_used_up() -> None:
    sender, _, other, _ = two(answer=AWAY, seconds=11)
    with pytest.raises(SenderUnavailable):
        sender.send(PHONE, TEXT, "k")
    assert other.asked == 0


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "https://", "https://user:hunter2@host/", "sns:", "http://host:hunter2"]
)
def test_an_address_nobody_can_send_by_is_a_setting_that_is_wrong(url: str) -> None:
    with pytest.raises(ConfigurationError, match="AFTERLIVE_NOTIFY_SMS_URLS") as caught:
        sms_sender(NotifySettings(_env_file=None, sms_urls=[SecretStr("console:"), SecretStr(url)]))
    assert "hunter2" not in str(caught.value)


def test_without_a_provider_nobody_can_send() -> None:
    with pytest.raises(ConfigurationError, match="AFTERLIVE_NOTIFY_SMS_URLS"):
        sms_sender(NotifySettings(_env_file=None, sms_urls=[]))


def test_on_a_machine_without_a_provider_texts_are_in_a_file_and_in_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    sender = sms_sender(NotifySettings(_env_file=None, sms_urls=[SecretStr(f"console:{tmp_path}/outbox")]))
    assert sender is sms_sender(NotifySettings(_env_file=None, sms_urls=[SecretStr(f"console:{tmp_path}/outbox")]))
    sender.send(PHONE, TEXT, "k")
    sender.send(PHONE, "two\nlines", "k")
    path = tmp_path / "outbox" / "sms.txt"
    assert [line.split(" ", 2)[2] for line in path.read_text().splitlines()] == [
        f"{PHONE} {TEXT}",
        f"{PHONE} two lines",
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    assert "+8869•••••678" in caplog.text
    for secret in (PHONE, PHONE[4:], "042917"):
        assert secret not in caplog.text


@pytest.mark.parametrize(("locale", "longest"), [("en", 160), ("zh-TW", 70)])
def test_a_code_is_one_text_message(settings: Settings, locale: str, longest: int) -> None:
    at = now()
    text = text_of(ToSend(PHONE, "0123456789", "", locale, at, at + timedelta(seconds=300)))
    assert "0123456789" in text
    assert "5" in text.replace("0123456789", "")
    assert "Afterlive" in text
    assert len(text) + len("A shop of a longer name") <= longest
    assert "\n" not in text
    assert locale != "en" or set(text) <= _GSM
