"""Folders for work in progress."""

from __future__ import annotations

import signal
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


DIE = """
import os, signal, sys
from pathlib import Path
from control.settings import MediaSettings
from media_worker.scratch import scratch
with scratch(MediaSettings(_env_file=None, scratch=Path(sys.argv[1]))) as folder:
    (folder / "encoded").mkdir()
    (folder / "encoded" / "720p.mp4").write_bytes(b"torn")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def die_in(folder: Path) -> None:
    """A process takes a folder and is killed."""
    done = subprocess.run([sys.executable, "-c", DIE, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL


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
        die_in(root(settings))
        others = [root(settings) / name for name in ("afterlive-notes", "something-else")]
        for folder in others:
            folder.mkdir()
        assert len(list(root(settings).iterdir())) == 6
        assert clean_scratch(settings) == 1
        left = {mine, mine.with_name(f"{mine.name}.lock"), *others}
        assert set(root(settings).iterdir()) == left
        assert clean_scratch(settings) == 0


def test_a_removal_that_was_cut_short_is_finished(settings: MediaSettings) -> None:
    die_in(root(settings))
    (folder,) = (path for path in root(settings).iterdir() if path.is_dir())
    (folder / "encoded" / "720p.mp4").unlink()
    assert clean_scratch(settings) == 1
    assert list(root(settings).iterdir()) == []


def test_a_link_is_not_followed(settings: MediaSettings, tmp_path: Path) -> None:
    root(settings).mkdir(parents=True)
    (tmp_path / "mine").write_bytes(b"precious")
    (root(settings) / "afterlive-x.lock").symlink_to(tmp_path / "mine")
    assert clean_scratch(settings) == 0
    assert (tmp_path / "mine").read_bytes() == b"precious"


def test_nothing_to_clean_where_nothing_ever_ran(settings: MediaSettings) -> None:
    assert clean_scratch(settings) == 0
    assert not root(settings).exists()
