"""`afterlive migrate`: a schema from nothing, once and again."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from control.cli import cli
from control.ledger.engine import Ledger


def test_it_makes_the_schema_and_finds_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'ledger.sqlite'}"
    (tmp_path / "afterlive_database_url").write_text(url)
    monkeypatch.setenv("AFTERLIVE_SECRETS_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        done = CliRunner().invoke(cli, ["migrate"])
        assert (done.exit_code, done.output) == (0, "the database's schema is up to date\n")
        ledger = Ledger(url)
        assert ledger.is_current()
        ledger.close()
