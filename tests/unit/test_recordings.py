"""Which files may be read as recordings."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from control.errors import (
    AfterliveError,
    RecordingEmpty,
    RecordingMissing,
    RecordingOutsideRoots,
    RecordingRefused,
    RecordingTooLarge,
)
from control.recordings import check_recording_file, resolve_recording
from control.settings import MediaSettings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"media")
    return folder


@pytest.mark.parametrize(
    "source",
    [
        "concat:a.mp4|b.mp4",
        "http://example.test/a.m3u8",
        "HTTPS://example.test/a.mp4",
        "file:a.mp4",
        "file:///etc/passwd",
        "subfile,,start,0,end,100,,:/etc/passwd",
        "crypto:a.mp4",
        "data:video/mp4;base64,AAAA",
        "pipe:0",
        "rtmp://example.test/live",
        "hls+http://example.test/a.m3u8",
        "async:cache:http://example.test",
        "fd:0",
        "C:\\recordings\\a.mp4",
        "-",
        "-i",
        "~/a.mp4",
        "",
        "   ",
        "a\0.mp4",
        "a\n.mp4",
        "a" * 5000,
    ],
)
def test_what_is_no_plain_path_is_refused(source: str, root: Path) -> None:
    with pytest.raises(RecordingRefused) as refused:
        resolve_recording(source, [root])
    assert "\n" not in refused.value.detail
    assert len(refused.value.detail) < 400


@pytest.mark.parametrize("source", ["/etc/passwd", "../secret.mp4", "a/../../secret.mp4", "..", "/"])
def test_what_leads_out_of_the_roots_is_refused(source: str, root: Path) -> None:
    with pytest.raises(RecordingOutsideRoots):
        resolve_recording(source, [root])


def test_a_symlink_out_of_the_roots_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "folder").symlink_to(tmp_path)
    for source in ("link.mp4", "folder/secret.mp4", str(root / "link.mp4")):
        with pytest.raises(RecordingOutsideRoots):
            resolve_recording(source, [root])


def test_a_sibling_that_shares_the_roots_name_is_outside(root: Path, tmp_path: Path) -> None:
    (tmp_path / "recordings-private").mkdir()
    with pytest.raises(RecordingOutsideRoots):
        resolve_recording(str(tmp_path / "recordings-private" / "a.mp4"), [root])


def test_a_loop_of_symlinks_is_no_crash(root: Path) -> None:
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(AfterliveError):
        check_recording_file(resolve_recording("loop", [root]), MediaSettings(_env_file=None))


@pytest.mark.parametrize("source", ["a.mp4", "./a.mp4", "x/../a.mp4"])
def test_a_relative_path_is_inside_a_root(source: str, root: Path) -> None:
    assert resolve_recording(source, [root]) == (root / "a.mp4").resolve()


def test_a_relative_path_may_also_start_at_the_working_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_recording("recordings/a.mp4", [Path("recordings")]) == (root / "a.mp4").resolve()


def test_the_root_that_has_the_file_wins(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.mp4").write_bytes(b"media")
    assert resolve_recording("b.mp4", [root, other]) == (other / "b.mp4").resolve()
    assert resolve_recording("missing.mp4", [root, other]) == root.resolve() / "missing.mp4"


def test_a_root_may_itself_be_a_symlink(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert resolve_recording(str(tmp_path / "alias" / "a.mp4"), [tmp_path / "alias"]) == (root / "a.mp4").resolve()


def test_a_colon_inside_an_absolute_path_is_a_plain_character(root: Path) -> None:
    assert resolve_recording(str(root / "live:2026.mp4"), [root]).name == "live:2026.mp4"


def test_no_roots_allow_nothing(root: Path) -> None:
    with pytest.raises(RecordingOutsideRoots):
        resolve_recording(str(root / "a.mp4"), [])


def test_a_sound_file_passes_with_its_size(root: Path) -> None:
    assert check_recording_file(root / "a.mp4", MediaSettings(_env_file=None)) == 5


def test_each_unsound_file_has_its_own_error(root: Path) -> None:
    settings = MediaSettings(_env_file=None, max_bytes=4)
    (root / "empty.mp4").touch()
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "s"))
        expected: dict[Path, type[AfterliveError]] = {
            root / "missing.mp4": RecordingMissing,
            root / "a.mp4" / "below": RecordingMissing,
            root / "empty.mp4": RecordingEmpty,
            root / "a.mp4": RecordingTooLarge,
            root: RecordingRefused,
            root / "pipe": RecordingRefused,
            root / "s": RecordingRefused,
            Path("/dev/null"): RecordingRefused,
        }
        for path, kind in expected.items():
            with pytest.raises(kind):
                check_recording_file(path, settings)
