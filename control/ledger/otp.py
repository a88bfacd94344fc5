"""One-time passwords: asked for, sent, verified once; and what is left of them is put away."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from control.bus import names
from control.errors import AfterliveError, OtpExpired, OtpLocked, OtpWrong, RateLimited
from control.ledger import otp_limits, outbox
from control.ledger.base import LOCK, new_id, now
from control.ledger.models import OutboxRow
from control.ledger.otp_models import Otp
from control.ledger.otp_vault import Vault, new_code
from control.ledger.task_models import TaskRow
from control.settings import OtpSettings

ACTIVE: Final = "active"
_NOBODYS: Final = "0" * 64
# Longer than all tries of a message that is not lost take.
_RENEW_AFTER: Final = timedelta(seconds=60)
_WORTH_RENEWING: Final = timedelta(seconds=45)
_KEPT: Final = timedelta(days=1)
_MOST: Final = 2000


@dataclass(frozen=True)
class Asked:
    """Somebody is to be sent a code. `phone` is in E.164; `ip` the end user's address."""

    phone: str
    purpose: str
    locale: str
    ip: str | None = None


@dataclass(frozen=True)
class Issued:
    """A code is on its way."""

    otp_id: str
    expires_at: datetime


@dataclass(frozen=True)
class ToSend:
    """What the sender needs to know."""

    phone: str
    code: str
    code_hash: str
    locale: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Verified:
    """The code was right. `phone` is whose phone it was sent to, in E.164."""

    otp_id: str
    phone: str
    purpose: str
    verified_at: datetime


def request_all(
    session: Session, vault: Vault, settings: OtpSettings, requests: Sequence[Asked]
) -> list[Issued | AfterliveError]:
    """For each in order a new code, which ends the one before for the same phone and purpose, or RateLimited."""
    hashes = [(vault.phone_hash(one.phone), vault.ip_hash(one.ip) if one.ip else None) for one in requests]
    otp_limits.lock(session, [key for pair in hashes for key in pair if key])
    return [
        _request(session, vault, settings, one, phone_hash, ip_hash)
        for one, (phone_hash, ip_hash) in zip(requests, hashes, strict=True)
    ]


def _request(
    session: Session, vault: Vault, settings: OtpSettings, asked: Asked, phone_hash: str, ip_hash: str | None
) -> Issued | RateLimited:
    at = now()
    before = otp_limits.of_phone(session, phone_hash, at, settings)
    if refused := otp_limits.refusal(session, before, ip_hash, at, settings):
        return refused
    if before:  # one that is active is among them: it is younger than an hour
        mine = (Otp.phone_hash == phone_hash) & (Otp.purpose == asked.purpose) & (Otp.state == ACTIVE)
        session.execute(update(Otp).where(mine).values(state="superseded", phone=None, ended_at=at))
    otp_id, code = new_id("otp"), new_code(settings.digits)
    expires_at = at + timedelta(seconds=settings.validity_seconds)
    session.add(
        Otp(
            id=otp_id,
            phone_hash=phone_hash,
            phone=vault.seal(otp_id, asked.phone),
            ip_hash=ip_hash,
            purpose=asked.purpose,
            locale=asked.locale,
            code_hash=vault.code_hash(otp_id, code),
            state=ACTIVE,
            attempts=0,
            created_at=at,
            expires_at=expires_at,
        )
    )
    outbox.add(session, names.SEND_OTP_SMS, {"otp_id": otp_id, "sealed": vault.seal(otp_id, code)})
    return Issued(otp_id, expires_at)


def verify(
    session: Session, vault: Vault, otp_id: str, code: str, most_attempts: int
) -> Verified | OtpWrong | OtpLocked | OtpExpired:
    """Use the code up. A wrong one counts, so an error is given, not raised: it has to be committed. One that never
    was, that was used and that is over are answered alike."""
    # Under its lock: of two that come at once with the right code, one is verified; of many wrong ones each counts.
    found = session.get(Otp, otp_id, with_for_update=LOCK)
    right = hmac.compare_digest(found.code_hash if found else _NOBODYS, vault.code_hash(otp_id, code))
    at = now()
    if found is None:
        return OtpExpired()
    if found.state == ACTIVE and found.expires_at <= at:
        _end(found, "expired", at)
    if found.state == "locked" and found.expires_at > at:
        return OtpLocked()
    if found.state != ACTIVE or found.phone is None:
        return OtpExpired()
    if right:
        phone = vault.open(otp_id, found.phone)
        _end(found, "verified", at)
        return Verified(otp_id, phone, found.purpose, at)
    found.attempts += 1
    if found.attempts < most_attempts:
        return OtpWrong(attempts_left=most_attempts - found.attempts)
    _end(found, "locked", at)
    return OtpLocked()


def to_send(session: Session, vault: Vault, otp_id: str, sealed: str) -> ToSend | None:
    """None where there is nothing to send any more: a provider has it, it ended, or it got another code since. Raises
    OtpExpired where it came too late."""
    found = session.get(Otp, otp_id)
    if found is None or found.sent_at is not None:
        return None
    if found.state == "expired" or (found.state == ACTIVE and found.expires_at <= now()):
        raise OtpExpired
    code = vault.open(otp_id, sealed)
    if found.state != ACTIVE or found.phone is None or found.code_hash != vault.code_hash(otp_id, code):
        return None
    phone = vault.open(otp_id, found.phone)
    return ToSend(phone, code, found.code_hash, found.locale, found.created_at, found.expires_at)


def sent(session: Session, otp_id: str, code_hash: str, provider: str, provider_id: str) -> None:
    """A provider took it, with this code; where it got another meanwhile, that is still to be sent."""
    mine = update(Otp).where(Otp.id == otp_id, Otp.code_hash == code_hash, Otp.sent_at.is_(None))
    session.execute(mine.values(sent_at=now(), provider=provider[:64], provider_id=provider_id[:128]))


def tidy(session: Session) -> None:
    """End what is over, numbers and all, and forget what no limit counts any more."""
    at = now()
    over = _some(session, (Otp.state == ACTIVE) & (Otp.expires_at <= at))
    if over:
        values = {"state": "expired", "phone": None, "ended_at": at}
        session.execute(update(Otp).where(Otp.id.in_(over), Otp.state == ACTIVE).values(values))
    if old := _some(session, Otp.created_at < at - _KEPT):
        session.execute(delete(Otp).where(Otp.id.in_(old)))


def renew_lost(session: Session, vault: Vault, settings: OtpSettings, *, bus_is_empty: bool = False) -> int:
    """Send again, once and with a new code, what was neither sent nor given up and is not in the outbox: its message
    went with the bus. Where it did not, and only takes its time, the old code is not sent. How many there were."""
    at = now()
    waits = select(OutboxRow.id).join(TaskRow, TaskRow.id == OutboxRow.task_id).where(TaskRow.key == Otp.id).exists()
    pending = select(TaskRow.id).where(TaskRow.key == Otp.id, TaskRow.state == "PENDING").exists()
    lost = (
        select(Otp)
        .where(
            Otp.state == ACTIVE,
            Otp.sent_at.is_(None),
            Otp.renewed_at.is_(None),
            Otp.created_at < (at if bus_is_empty else at - _RENEW_AFTER),
            Otp.expires_at > at + _WORTH_RENEWING,
            pending,
            ~waits,
        )
        .limit(_MOST)
        .with_for_update(skip_locked=True, of=Otp)
    )
    found = session.scalars(lost).all()
    for one in found:
        code = new_code(settings.digits)
        one.code_hash, one.renewed_at = vault.code_hash(one.id, code), at
        outbox.add(session, names.SEND_OTP_SMS, {"otp_id": one.id, "sealed": vault.seal(one.id, code)})
    return len(found)


def _end(found: Otp, state: str, at: datetime) -> None:
    found.state, found.phone, found.ended_at = state, None, at


def _some(session: Session, where: object) -> Sequence[str]:
    query = select(Otp.id).where(where).limit(_MOST).with_for_update(skip_locked=True)  # type: ignore[arg-type]
    return session.scalars(query).all()
