"""What `afterlive replay` makes of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.cli.replay import _settings


def test_what_nobody_chose_stays_unsaid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Devices are tried, for seconds, where encoders or devices are named; a default names none."""
    monkeypatch.setenv("AFTERLIVE_MEDIA_CONCURRENCY", "1")
    media = _settings(str(tmp_path / "a.mp4"), tmp_path / "replay", {"preset": "fast"}).media
    assert media.model_fields_set == {"preset", "recording_roots", "concurrency"}
    assert (media.preset, media.recording_roots, media.concurrency) == ("fast", [tmp_path], 1)
