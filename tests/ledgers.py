"""Ledgers that are migrated already: once a run, then copied. Migrating each test's own is most of what many tests
would take."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from sqlalchemy import make_url

from control.ledger.engine import Ledger


def migrated(url: str) -> Ledger:
    """The ledger of an SQLite URL, with the newest schema; one that is there already is left as it is."""
    path = Path(make_url(url).database or "")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_template(), path)
    return Ledger(url)


@lru_cache(maxsize=1)
def _template() -> Path:
    folder = tempfile.mkdtemp(prefix="afterlive-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "ledger.sqlite"
    made = Ledger(f"sqlite:///{path}")
    made.upgrade()
    made.close()
    return path
