"""One-time passwords in the ledger: who may ask, which code is right, and that nothing of them can be read there."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import select

from control.bus import names
from control.cli.private import complete
from control.errors import ConfigurationError, OtpExpired, OtpLocked, OtpWrong, RateLimited
from control.ledger import otp, outbox, tasks
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.otp_models import Otp
from control.ledger.otp_vault import Vault, need_vault, new_code, vault_of
from control.settings import OtpSettings, Settings

VAULT = Vault(b"a secret of the tests")
PHONE, OTHER = "+886912345678", "+886987654321"
IP = "203.0.113.7"


def limits(**changes: Any) -> OtpSettings:
    return OtpSettings(_env_file=None, **changes)


def ask(ledger: Ledger, phone: str = PHONE, purpose: str = "login", ip: str | None = None, **settings: Any) -> Any:
    with ledger.write() as session:
        return otp.request_all(session, VAULT, limits(**settings), [otp.Asked(phone, purpose, "en", ip)])[0]


def code_of(ledger: Ledger, otp_id: str) -> str:
    return VAULT.open(otp_id, sealed_of(ledger, otp_id))


def sealed_of(ledger: Ledger, otp_id: str) -> str:
    with ledger.read() as session:
        rows = session.scalars(select(OutboxRow).where(OutboxRow.task == names.SEND_OTP_SMS.name))
        return next(str(row.payload["sealed"]) for row in reversed(rows.all()) if row.payload["otp_id"] == otp_id)


def row(ledger: Ledger, otp_id: str) -> Otp:
    with ledger.read() as session:
        return session.get_one(Otp, otp_id)


def check(ledger: Ledger, otp_id: str, code: str, most: int = 3) -> Any:
    with ledger.write() as session:
        return otp.verify(session, VAULT, otp_id, code, most)


def passes(ledger: Ledger, **time: float) -> None:
    """So much time."""
    with ledger.write() as session:
        for one in session.scalars(select(Otp)):
            one.created_at -= timedelta(**time)
            one.expires_at -= timedelta(**time)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}d}"


# --- verifying --------------------------------------------------------------------------------------------------------


def test_a_code_is_right_once(ledger: Ledger) -> None:
    issued = ask(ledger)
    code = code_of(ledger, issued.otp_id)
    assert re.fullmatch("[0-9]{6}", code)
    found = check(ledger, issued.otp_id, code)
    assert (found.phone, found.purpose) == (PHONE, "login")
    assert isinstance(check(ledger, issued.otp_id, code), OtpExpired)
    assert (row(ledger, issued.otp_id).state, row(ledger, issued.otp_id).phone) == ("verified", None)


def test_the_last_wrong_code_locks_and_the_right_one_comes_too_late(ledger: Ledger) -> None:
    issued = ask(ledger)
    code = code_of(ledger, issued.otp_id)
    left = [check(ledger, issued.otp_id, wrong(code)) for _ in range(2)]
    assert [one.facts for one in left] == [{"attempts_left": 2}, {"attempts_left": 1}]
    assert all(isinstance(one, OtpWrong) for one in left)
    assert isinstance(check(ledger, issued.otp_id, wrong(code)), OtpLocked)
    assert isinstance(check(ledger, issued.otp_id, code), OtpLocked)
    assert row(ledger, issued.otp_id).phone is None
    passes(ledger, seconds=301)
    assert isinstance(check(ledger, issued.otp_id, code), OtpExpired)


def test_what_is_over_replaced_or_never_was_is_answered_alike(ledger: Ledger) -> None:
    first = ask(ledger)
    code = code_of(ledger, first.otp_id)
    kept = ask(ledger, purpose="checkout", resend_seconds=0)
    second = ask(ledger, resend_seconds=0)
    assert row(ledger, first.otp_id).state == "superseded"
    assert row(ledger, kept.otp_id).state == "active"
    late = code_of(ledger, second.otp_id)
    passes(ledger, seconds=300)
    answers = [check(ledger, first.otp_id, code), check(ledger, second.otp_id, late), check(ledger, "otp_0", "000000")]
    assert {(type(one), str(one)) for one in answers} == {(OtpExpired, str(OtpExpired()))}
    assert row(ledger, second.otp_id).state == "expired"


def test_another_s_code_is_wrong(ledger: Ledger) -> None:
    mine, theirs = ask(ledger), ask(ledger, OTHER)
    with ledger.write() as session:  # the same code, by chance
        session.get_one(Otp, mine.otp_id).code_hash = VAULT.code_hash(mine.otp_id, "111111")
        session.get_one(Otp, theirs.otp_id).code_hash = row(ledger, mine.otp_id).code_hash
    assert isinstance(check(ledger, theirs.otp_id, "111111"), OtpWrong)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_phone_waits_for_its_next_code_whatever_for(ledger: Ledger) -> None:
    first = ask(ledger)
    passes(ledger, seconds=10)
    refused = ask(ledger, purpose="checkout")
    assert isinstance(refused, RateLimited)
    assert refused.facts["retry_after_seconds"] == pytest.approx(20, abs=2)
    assert row(ledger, first.otp_id).state == "active"  # whom it was refused to still has the one before
    assert isinstance(ask(ledger, OTHER), otp.Issued)
    passes(ledger, seconds=20)
    assert isinstance(ask(ledger), otp.Issued)


def test_a_phone_gets_five_in_any_hour(ledger: Ledger) -> None:
    for _ in range(5):
        assert isinstance(ask(ledger), otp.Issued)
        passes(ledger, minutes=10)
    assert ask(ledger).facts["retry_after_seconds"] == pytest.approx(600, abs=5)
    passes(ledger, minutes=10)
    assert isinstance(ask(ledger), otp.Issued)
    assert ask(ledger, resend_seconds=0).facts["retry_after_seconds"] == pytest.approx(600, abs=5)


def test_an_address_gets_twenty_for_whichever_phones(ledger: Ledger) -> None:
    phones = [f"+8869123456{number:02}" for number in range(21)]
    assert all(isinstance(ask(ledger, phone, ip=IP), otp.Issued) for phone in phones[:20])
    refused = ask(ledger, phones[20], ip=IP)
    assert isinstance(refused, RateLimited)
    assert refused.facts["retry_after_seconds"] == pytest.approx(3600, abs=2)
    assert isinstance(ask(ledger, phones[20], ip="203.0.113.8"), otp.Issued)
    assert isinstance(ask(ledger, "+886912345699"), otp.Issued)  # nobody named an address


def test_requests_committed_together_count_together(ledger: Ledger) -> None:
    asked = [otp.Asked(PHONE, "login", "en"), otp.Asked(OTHER, "login", "en"), otp.Asked(PHONE, "login", "en")]
    with ledger.write() as session:
        made = otp.request_all(session, VAULT, limits(), asked)
    assert [type(one) for one in made] == [otp.Issued, otp.Issued, RateLimited]


def test_a_household_is_one_address() -> None:
    same = [VAULT.ip_hash(ip) for ip in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9")]
    assert same[0] == same[1] != VAULT.ip_hash("2001:db8:1:3::1")
    assert VAULT.ip_hash("::ffff:203.0.113.7") == VAULT.ip_hash(IP) != VAULT.ip_hash("203.0.113.8")


# --- sending ----------------------------------------------------------------------------------------------------------


def test_what_was_sent_is_not_sent_again(ledger: Ledger) -> None:
    issued = ask(ledger)
    with ledger.write() as session:
        found = otp.to_send(session, VAULT, issued.otp_id, sealed_of(ledger, issued.otp_id))
        assert found is not None
        assert (found.phone, found.code) == (PHONE, code_of(ledger, issued.otp_id))
        otp.sent(session, issued.otp_id, found.code_hash, "sns", "m-1")
        session.expire_all()
        assert otp.to_send(session, VAULT, issued.otp_id, sealed_of(ledger, issued.otp_id)) is None


def test_a_message_lost_with_its_bus_is_sent_once_more_with_another_code(ledger: Ledger) -> None:
    issued = ask(ledger)
    first, lost = code_of(ledger, issued.otp_id), sealed_of(ledger, issued.otp_id)
    passes(ledger, seconds=70)

    def renewed() -> int:
        with ledger.write() as session:
            return otp.renew_lost(session, VAULT, limits())

    assert renewed() == 0  # it waits in the outbox
    with ledger.write() as session:
        outbox.sent(session, [one.id for one in outbox.due(session, 10)])
    assert [renewed(), renewed()] == [1, 0]
    with ledger.read() as session:
        assert otp.to_send(session, VAULT, issued.otp_id, lost) is None  # it was only late
        found = otp.to_send(session, VAULT, issued.otp_id, sealed_of(ledger, issued.otp_id))
    assert found is not None
    assert found.code == code_of(ledger, issued.otp_id)
    if first != found.code:
        assert isinstance(check(ledger, issued.otp_id, first), OtpWrong)
    assert isinstance(check(ledger, issued.otp_id, found.code), otp.Verified)


def test_what_was_given_up_is_not_renewed(ledger: Ledger) -> None:
    issued = ask(ledger)
    passes(ledger, seconds=70)
    with ledger.write() as session:
        outbox.sent(session, [one.id for one in outbox.due(session, 10)])
        (task,) = tasks.of_key(session, issued.otp_id)
        tasks.finish(session, task.id, "FAILURE")
        assert otp.renew_lost(session, VAULT, limits()) == 0


def test_what_is_over_loses_its_number_and_is_forgotten_after_a_day(ledger: Ledger) -> None:
    issued = ask(ledger)
    with ledger.write() as session:
        otp.tidy(session)
    assert row(ledger, issued.otp_id).phone is not None
    passes(ledger, seconds=300)
    with ledger.write() as session:
        otp.tidy(session)
    assert (row(ledger, issued.otp_id).phone, row(ledger, issued.otp_id).state) == (None, "expired")
    with pytest.raises(OtpExpired), ledger.read() as session:
        otp.to_send(session, VAULT, issued.otp_id, sealed_of(ledger, issued.otp_id))
    passes(ledger, days=1)
    with ledger.write() as session:
        otp.tidy(session)
        assert session.get(Otp, issued.otp_id) is None


# --- nothing can be read ----------------------------------------------------------------------------------------------


def test_neither_code_nor_number_nor_address_is_in_the_ledger(ledger: Ledger) -> None:
    issued = ask(ledger, ip=IP)
    code = code_of(ledger, issued.otp_id)
    with ledger.read() as session:
        rows = [one for kind in (Otp, OutboxRow) for one in session.scalars(select(kind))]
    kept = json.dumps([{c.name: getattr(one, c.name) for c in one.__table__.columns} for one in rows], default=str)
    for secret in (PHONE, PHONE[4:], IP, f'"{code}"', f":{code}"):
        assert secret not in kept


def test_another_secret_opens_and_compares_nothing(ledger: Ledger) -> None:
    other = Vault(b"another secret of the tests")
    assert other.code_hash("otp_1", "123456") != VAULT.code_hash("otp_1", "123456")
    assert other.phone_hash(PHONE) != VAULT.phone_hash(PHONE)
    sealed = VAULT.seal("otp_1", "123456")
    for vault, whose in ((other, "otp_1"), (VAULT, "otp_2")):
        with pytest.raises(ConfigurationError, match="AFTERLIVE_OTP_SECRET"):
            vault.open(whose, sealed)


@pytest.mark.parametrize("secret", [None, SecretStr("")])
def test_without_a_secret_there_are_no_codes(secret: SecretStr | None) -> None:
    assert vault_of(secret) is None
    with pytest.raises(ConfigurationError, match="AFTERLIVE_OTP_SECRET"):
        need_vault(secret)


def test_a_short_secret_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="16 bytes") as caught:
        vault_of(SecretStr("guessed"))
    assert "guessed" not in str(caught.value)


@given(digits=st.integers(4, 10))
def test_codes_have_their_length_and_are_no_sequence(digits: int) -> None:
    made = {new_code(digits) for _ in range(50)}
    assert {len(code) for code in made} == {digits}
    assert len(made) > 40


def test_a_machine_of_one_s_own_gets_a_secret_and_keeps_it(tmp_path: Path) -> None:
    empty = Settings(_env_file=None, otp=OtpSettings(_env_file=None))
    made = complete(empty, tmp_path).otp.secret
    assert made is not None
    assert made == complete(empty, tmp_path).otp.secret
    assert vault_of(made)
    chosen = Settings(_env_file=None, otp=OtpSettings(_env_file=None, secret=SecretStr("a secret of one's own")))
    assert complete(chosen, tmp_path / "other").otp.secret == chosen.otp.secret
    assert not (tmp_path / "other" / "otp-secret").exists()
