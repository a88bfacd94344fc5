"""The ledger's database: SQLite embedded, PostgreSQL in production. One transaction a block, read or write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session

import control.ledger.analytics_models
import control.ledger.models
import control.ledger.node_models
import control.ledger.notice_models
import control.ledger.order_models
import control.ledger.otp_models
import control.ledger.payment_models
import control.ledger.task_models
import control.ledger.webhook_models  # noqa: F401  (the tables of Base)
from control.ledger.base import Base

if TYPE_CHECKING:  # half as costly to load as all of SQLAlchemy, and needed at start-up alone
    from alembic.config import Config

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_BUSY_SECONDS: Final = 30
_BELIEVED_SECONDS: Final = 1.0
_USED: Final = "afterlive_used"
# More than a worker has threads that could want one at a time.
_CONNECTIONS: Final = 32
# A server whose machine is gone sends nothing, not even an end: without these its clients would wait for hours.
_GONE_AFTER: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}


class Ledger:
    """A database the ledger lives in. Safe to share between threads; not between forked processes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._sqlite = make_url(url).get_backend_name() == "sqlite"
        self._engine = _engine(url, sqlite=self._sqlite)
        self._writer = self._engine.execution_options(afterlive_write=True)
        self._reader = self._engine
        if not self._sqlite:
            # PostgreSQL's default gives each statement a moment of its own.
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @property
    def is_shared(self) -> bool:
        """Whether several processes may write to it at a time."""
        return not self._sqlite

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one moment."""
        with Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed at the end of the block, and undone where the block raises."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def upgrade(self) -> None:
        """Bring the schema to the newest version. Safe to call from several processes, one after the other."""
        from alembic import command

        self._make_folder()
        with self._writer.begin() as connection:
            command.upgrade(alembic_config(connection), "head")

    def create(self) -> None:
        """Make the newest tables where there are none, without migrations: for a ledger that no other version of
        this program will ever see."""
        self._make_folder()
        with self._writer.begin() as connection:
            Base.metadata.create_all(connection)

    def check(self) -> None:
        """Raise sqlalchemy.exc.OperationalError where the database cannot be reached."""
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def is_current(self) -> bool:
        """Whether the schema is the newest version."""
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        with self._engine.connect() as connection:
            heads = MigrationContext.configure(connection).get_current_heads()
            return set(heads) == set(ScriptDirectory.from_config(alembic_config(connection)).get_heads())

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    def _make_folder(self) -> None:
        if self._sqlite and (database := make_url(self.url).database):
            Path(database).parent.mkdir(parents=True, exist_ok=True)


@lru_cache(maxsize=8)
def open_ledger(url: str) -> Ledger:
    """The ledger at `url`, opened once a process."""
    return Ledger(url)


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for an open connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _engine(url: str, *, sqlite: bool) -> Engine:
    if not sqlite:
        # One that is given up has to be made again, which costs the server more than most transactions.
        kept = 20
        # Errors are logged, and what a statement was given may be somebody's address: `hide_parameters`.
        engine = create_engine(
            url,
            pool_size=kept,
            max_overflow=_CONNECTIONS - kept,
            pool_use_lifo=True,  # a connection that is used often has its statements prepared
            connect_args=_GONE_AFTER,
            hide_parameters=True,
        )
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", _Ping(engine))
        return engine
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _note_use(_connection: Any, record: Any) -> None:
    record.info[_USED] = time.monotonic()


class _Ping:
    """Ask a connection that was idle for a while whether it still stands, before it is used. One that was used a moment
    ago is believed: a question a transaction is as much as the smallest transactions ask themselves."""

    def __init__(self, engine: Engine) -> None:
        self._dialect = engine.dialect

    def __call__(self, connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get(_USED, time.monotonic()) < _BELIEVED_SECONDS:
            return
        try:
            self._dialect.do_ping(connection)
        except Exception as error:
            raise InvalidatePoolError from error  # none of the others stands either


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_begin_sqlite` does
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a committed fact survives the loss of power too
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes its lock at once: one that read first and then cannot get it would have to start over.
    write = connection.get_execution_options().get("afterlive_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
