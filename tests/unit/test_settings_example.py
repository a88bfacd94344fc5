"""The example of all settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from control.settings import Settings
from tests.house.hygiene import ROOT


def test_the_example_file_names_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = dict(
        line.removeprefix("#").split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line.startswith("#AFTERLIVE_")
    )
    groups = [field.annotation for field in Settings.model_fields.values()]
    fields = {
        f"{group.model_config['env_prefix']}{name}".upper(): (group, name)
        for group in groups
        if isinstance(group, type) and issubclass(group, BaseSettings)
        for name in group.model_fields
    }
    assert set(shown) == set(fields)
    monkeypatch.chdir(tmp_path)
    defaults = {setting: getattr(group(), name) for setting, (group, name) in fields.items()}
    for setting, text in shown.items():
        if text and "…" not in text:
            monkeypatch.setenv(setting, text)
    assert {setting: getattr(group(), name) for setting, (group, name) in fields.items()} == defaults
