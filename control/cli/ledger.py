"""The ledger, for commands that work on it beside whatever else runs."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from control.errors import ConfigurationError
from control.ledger.engine import Ledger, open_ledger
from control.settings import LedgerSettings

_SETTING = "AFTERLIVE_DATABASE_URL"


@contextmanager
def ledger_at_hand(settings: LedgerSettings) -> Iterator[Ledger]:
    """The ledger, as it is: neither made nor upgraded. Raises ConfigurationError where it cannot be used."""
    try:
        url = make_url(settings.url)
        # SQLite would make an empty one.
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            raise ConfigurationError(setting=_SETTING, reason=f"there is no database {url.database}")
        yield open_ledger(settings.url)
    except ArgumentError as error:
        raise ConfigurationError(setting=_SETTING, reason="it is not a database's URL") from error
    except SQLAlchemyError as error:
        # Of the driver's words the first line: the rest is the statement, and its values.
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise ConfigurationError(setting=_SETTING, reason=f"the database cannot be used: {said}") from error


def actor() -> str:
    """Who does this, for the audit: `cli:USER@HOST`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container the user may have no name
        user = str(os.getuid())
    return f"cli:{user}@{socket.gethostname()}"[:160]
