"""Folders for work in progress."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from control.settings import MediaSettings
from media_worker.scratch import clean_scratch, scratch


@pytest.fixture
def settings(tmp_path: Path) -> MediaSettings:  # the shared fixture of that name is not needed here
    return MediaSettings(_env_file=None, scratch=tmp_path / "deep" / "scratch")


def root(settings: MediaSettings) -> Path:
    assert settings.scratch is not None
    return settings.scratch


def dead_pid() -> int:
    """The id of a process that has just ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_folder_lasts_as_long_as_its_block(settings: MediaSettings) -> None:
    with scratch(settings) as one, scratch(settings) as other:
        assert one != other
        assert one.parent == other.parent == root(settings)
        (one / "a" / "b").mkdir(parents=True)
        (one / "a" / "b" / "file").write_bytes(b"x")
    assert list(root(settings).iterdir()) == []


def test_it_goes_with_an_error_too(settings: MediaSettings) -> None:
    def fail() -> None:
        with scratch(settings) as folder:
            (folder / "file").write_bytes(b"x")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert list(root(settings).iterdir()) == []


def test_without_a_folder_of_ones_own_it_is_the_system_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch(MediaSettings(_env_file=None)) as folder:
        assert folder.parent == tmp_path
    assert clean_scratch(MediaSettings(_env_file=None)) == 0


def test_only_what_dead_processes_left_is_removed(settings: MediaSettings) -> None:
    with scratch(settings) as mine:
        dead = root(settings) / f"afterlive-{dead_pid()}-x1"
        (dead / "encoded").mkdir(parents=True)
        (dead / "encoded" / "720p.mp4").write_bytes(b"torn")
        others = [
            root(settings) / name for name in ("afterlive-notes", "something-else", f"afterlive-{os.getppid()}-y")
        ]
        for folder in others:
            folder.mkdir()
        (root(settings) / f"afterlive-{dead_pid()}-file").write_bytes(b"a file, not a folder")
        assert clean_scratch(settings) == 1
        assert not dead.exists()
        assert mine.exists()
        assert all(folder.exists() for folder in others)


def test_somebody_else_s_living_process_counts_as_living(
    settings: MediaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    (root(settings) / "afterlive-4242-z").mkdir(parents=True)
    monkeypatch.setattr("os.kill", refuse)
    assert clean_scratch(settings) == 0


def test_nothing_to_clean_where_nothing_ever_ran(settings: MediaSettings) -> None:
    assert clean_scratch(settings) == 0
    assert not root(settings).exists()
