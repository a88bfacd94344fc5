"""Many want the same of a one-time password at the same moment, each in a transaction of its own."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control.errors import RateLimited
from control.ledger import otp
from control.ledger.engine import Ledger
from control.ledger.otp_models import Otp
from tests.integration.test_ledger_races import at_once
from tests.unit.test_otp import IP, VAULT, ask, code_of, limits, passes, row, wrong


def kinds(results: list[Any]) -> Counter[str]:
    return Counter(type(one).__name__ for one in results)


def test_of_many_with_the_right_code_one_is_verified(ledger: Ledger) -> None:
    for _ in range(3):
        issued = ask(ledger, resend_seconds=0)
        code = code_of(ledger, issued.otp_id)
        found = at_once(ledger, *[lambda s, c=code, i=issued.otp_id: otp.verify(s, VAULT, i, c, 5)] * 8)
        assert kinds(found) == {"Verified": 1, "OtpExpired": 7}


def test_every_wrong_code_counts(ledger: Ledger) -> None:
    issued = ask(ledger)
    code = wrong(code_of(ledger, issued.otp_id))
    found = at_once(ledger, *[lambda s: otp.verify(s, VAULT, issued.otp_id, code, 5)] * 8)
    assert kinds(found) == {"OtpWrong": 4, "OtpLocked": 4}
    assert {one.facts["attempts_left"] for one in found if "attempts_left" in one.facts} == {1, 2, 3, 4}
    assert row(ledger, issued.otp_id).attempts == 5


def test_a_phone_s_limit_is_exact(ledger: Ledger) -> None:
    asked = [otp.Asked("+886912345678", "login", "en")]
    found = at_once(ledger, *[lambda s: otp.request_all(s, VAULT, limits(resend_seconds=0), asked)[0]] * 9)
    assert kinds(found) == {"Issued": 5, "RateLimited": 4}
    with ledger.read() as session:
        active = select(func.count()).select_from(Otp).where(Otp.state == "active")
        assert session.scalar(active) == 1
    passes(ledger, hours=1)
    found = at_once(ledger, *[lambda s: otp.request_all(s, VAULT, limits(), asked)[0]] * 6)
    assert kinds(found) == {"Issued": 1, "RateLimited": 5}


def test_an_address_s_limit_is_exact_and_groups_do_not_wait_for_each_other(ledger: Ledger) -> None:
    """Each transaction of several phones, in an order of its own: locked as they come, some would wait for ever."""
    phones = [f"+8869123456{number:02}" for number in range(4)]
    orders = list(itertools.permutations(phones))[::3]

    def group(order: tuple[str, ...]) -> Any:
        asked = [otp.Asked(phone, "login", "en", IP) for phone in order]
        settings = limits(resend_seconds=0, hourly_per_phone=100, hourly_per_ip=18)

        def act(session: Session) -> Any:
            return otp.request_all(session, VAULT, settings, asked)

        return act

    found = at_once(ledger, *[group(order) for order in orders])
    assert all(isinstance(one, list) for one in found), found
    assert kinds(list(itertools.chain(*found))) == {"Issued": 18, "RateLimited": 4 * len(orders) - 18}


def test_refused_requests_are_errors_not_rows(ledger: Ledger) -> None:
    assert isinstance(ask(ledger), otp.Issued)
    assert isinstance(ask(ledger), RateLimited)
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(Otp)) == 1
