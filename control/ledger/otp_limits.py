"""How many codes a phone and an end user's address may be sent: counted in the ledger, so that all API processes count
together, and exactly, as whoever counts holds what is counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from control.errors import RateLimited
from control.ledger.otp_models import Otp
from control.settings import OtpSettings

_HOUR: Final = timedelta(hours=1)
_LOCK: Final = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")


def lock(session: Session, hashes: Sequence[str]) -> None:
    """No other transaction counts these until this one is committed. SQLite has one writer anyway."""
    # It begins here, so what time it is is asked for after whoever was before has ended.
    if session.connection().dialect.name == "sqlite" or not hashes:
        return
    # There may be no row yet that could be locked. In one order, whoever locks several: so none wait for each other.
    keys = sorted({int.from_bytes(bytes.fromhex(one)[:8], signed=True) for one in hashes})
    session.execute(_LOCK, {"keys": keys})


def of_phone(session: Session, phone_hash: str, at: datetime, settings: OtpSettings) -> Sequence[datetime]:
    """When the latest codes of the last hour were asked for, newest first; no more of them than are allowed."""
    query = select(Otp.created_at).where(Otp.phone_hash == phone_hash, Otp.created_at > at - _HOUR)
    return session.scalars(query.order_by(Otp.created_at.desc()).limit(settings.hourly_per_phone)).all()


def refusal(
    session: Session, before: Sequence[datetime], ip_hash: str | None, at: datetime, settings: OtpSettings
) -> RateLimited | None:
    """What is over, and how long; of several the longest."""
    waits: list[tuple[datetime, str]] = []
    if before:
        waits.append((before[0] + timedelta(seconds=settings.resend_seconds), "this number was just sent a code"))
    if len(before) >= settings.hourly_per_phone:
        waits.append((before[-1] + _HOUR, "this number was sent as many codes as it gets in an hour"))
    if ip_hash is not None and (first := _first_of_ip(session, ip_hash, at, settings)):
        waits.append((first + _HOUR, "this address asked for as many codes as it gets in an hour"))
    until, reason = max(waits, default=(at, ""))
    if until <= at:
        return None
    return RateLimited(reason=reason, retry_after_seconds=math.ceil((until - at).total_seconds()))


def _first_of_ip(session: Session, ip_hash: str, at: datetime, settings: OtpSettings) -> datetime | None:
    """When the first of the latest `hourly_per_ip` was asked for; None where there were fewer in the last hour."""
    query = select(Otp.created_at).where(Otp.ip_hash == ip_hash, Otp.created_at > at - _HOUR)
    return session.scalar(query.order_by(Otp.created_at.desc()).offset(settings.hourly_per_ip - 1).limit(1))
