"""Which errors of the database say nothing of the task that met with them."""

from __future__ import annotations

import sqlite3
import time
from typing import Any, cast

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, OperationalError, TimeoutError

from control.bus.outcome import is_outage, ledger_is_away
from control.bus.publish import FIRST
from control.errors import AfterliveError, EncoderBusy, EncoderUnavailable, StorageUnavailable
from tests.services import free_port


def test_a_server_that_nobody_reaches_is_away() -> None:
    engine = create_engine(f"postgresql+psycopg://a@127.0.0.1:{free_port()}/a")
    with pytest.raises(OperationalError) as told:
        engine.connect()
    assert ledger_is_away(told.value)


@pytest.mark.parametrize(
    "cause", [errors.AdminShutdown, errors.CannotConnectNow, errors.TooManyConnections, errors.DiskFull]
)
def test_what_the_server_says_of_itself(cause: type[psycopg.Error]) -> None:
    assert ledger_is_away(OperationalError("SELECT 1", {}, cause("x")))


def test_no_connection_left_in_the_pool() -> None:
    assert ledger_is_away(TimeoutError("QueuePool limit"))


@pytest.mark.parametrize("cause", [errors.DeadlockDetected, errors.QueryCanceled, errors.LockNotAvailable])
def test_what_a_statement_met_with_is_a_try_like_others(cause: type[psycopg.Error]) -> None:
    assert not ledger_is_away(OperationalError("SELECT 1", {}, cause("x")))


def test_nor_is_anything_else() -> None:
    assert not ledger_is_away(IntegrityError("INSERT", {}, errors.UniqueViolation("x")))
    assert not ledger_is_away(OSError("x"))
    with pytest.raises(OperationalError) as told, create_engine("sqlite://").connect() as connection:
        connection.execute(text("SELECT * FROM nothing"))
    assert isinstance(told.value.orig, sqlite3.OperationalError)
    assert not ledger_is_away(told.value)


class _Delivery:
    """A task's message, by when its first try was."""

    def __init__(self, first: float) -> None:
        self.request = {FIRST: round(first * 1000)}


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (EncoderBusy(encoder="h264_nvenc", reason="x"), 24 * 3600),
        (StorageUnavailable(key="k", reason="x"), 3600),
    ],
)
def test_waiting_for_an_encoder_or_the_store_costs_no_try_for_its_time(error: AfterliveError, seconds: int) -> None:
    assert is_outage(cast(Any, _Delivery(time.time() - seconds + 60)), error)
    assert not is_outage(cast(Any, _Delivery(time.time() - seconds - 60)), error)
    assert not is_outage(cast(Any, _Delivery(time.time())), EncoderUnavailable(encoder="e", node="n", reason="x"))
