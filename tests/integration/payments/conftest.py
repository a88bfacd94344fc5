"""A gateway that tells the truth, and a ledger whose settings name it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control.ledger.engine import Ledger
from control.settings import Settings, use
from tests.ecpay import FakeEcpay, fake_ecpay, payment_settings


@pytest.fixture(scope="module")
def server() -> Iterator[FakeEcpay]:
    with fake_ecpay() as made:
        yield made


@pytest.fixture
def fake(server: FakeEcpay) -> Iterator[FakeEcpay]:
    """It tells the truth, and by itself nothing: notices are the tests'."""
    server.lie(hold=True)
    yield server
    server.lie()


@pytest.fixture
def settings(settings: Settings, server: FakeEcpay) -> Settings:
    made = settings.model_copy(update={"payment": payment_settings(server.url)})
    use(made)
    return made


@pytest.fixture
def ledger(ledger: Ledger, fake: FakeEcpay) -> Ledger:
    """The one of the settings in use, and a gateway that answers."""
    return ledger
