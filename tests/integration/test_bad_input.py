"""What is no recording is refused by name, what broke is used as far as it goes, and no file makes us open another."""

from __future__ import annotations

import http.server
import os
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import pytest

from control.bus.messages import MediaInfo, RecordingJob
from control.bus.work import Work
from control.errors import (
    AfterliveError,
    Cancelled,
    DeadlineExceeded,
    RecordingMissing,
    RecordingNotMedia,
    RecordingOutsideRoots,
    RecordingRefused,
    RecordingTooLarge,
    RecordingWithoutVideo,
)
from control.settings import MediaSettings
from control.storage import LocalStore
from media_worker.ffmpeg import ffmpeg_path
from media_worker.recording import examine as examine_recording
from media_worker.source import locate, open_options
from tests.clip_builders import AAC, Recipe, Source, ffmpeg, h264
from tests.clips import CLIPS
from tests.production import Production, decode_video, look_at, media_settings

BAD = [name for name, clip in CLIPS.items() if clip.error is not None]
# What a person is told of each, beside its code.
REASONS = {
    "no-moov": "it was cut off before its index (moov) was written",
    "noise": "Invalid data",
    "text": "Invalid data",
    "playlist-disguised": "it is an HLS playlist",
    "dash-disguised": "it is a DASH manifest",
    "concat-disguised": "it is a list of other files (ffconcat)",
}


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    return folder


@pytest.fixture
def examine(recordings: Path, tmp_path: Path) -> Callable[..., MediaInfo]:
    """Look at a recording, `recordings` being the only root."""

    def look(source: Path | str, work: Work | None = None, **changes: Any) -> MediaInfo:
        return look_at(source, tmp_path, media_settings(tmp_path, recordings, **changes), work)

    return look


@dataclass
class Canary:
    """A web server that must not be asked for anything."""

    port: int
    requests: list[str] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


@pytest.fixture
def canary() -> Iterator[Canary]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        seen = Canary(server.server_port)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield seen
        server.shutdown()
        thread.join()


def refusal(look: Callable[..., MediaInfo], source: Path | str, **changes: Any) -> AfterliveError:
    with pytest.raises(AfterliveError) as error:
        look(source, **changes)
    assert "\n" not in error.value.detail
    return error.value


@pytest.mark.parametrize("name", BAD)
def test_each_has_its_own_error(
    name: str, clip: Callable[[str], Path], recordings: Path, examine: Callable[..., MediaInfo]
) -> None:
    path = Path(shutil.copy(clip(name), recordings))
    error = refusal(examine, path)
    assert error.code == CLIPS[name].error
    assert path.name in error.detail
    assert REASONS.get(name, "") in error.detail


def test_a_file_that_is_not_there(recordings: Path, examine: Callable[..., MediaInfo]) -> None:
    assert type(refusal(examine, recordings / "missing.mp4")) is RecordingMissing
    assert type(refusal(examine, "missing.mp4")) is RecordingMissing


def test_a_file_that_may_not_be_read(
    clip: Callable[[str], Path], recordings: Path, examine: Callable[..., MediaInfo]
) -> None:
    path = Path(shutil.copy(clip("mp4"), recordings))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert type(refusal(examine, path)) is RecordingMissing


@pytest.mark.parametrize(
    "prefix", ["http://127.0.0.1:1/", "concat:", "file:", "subfile,,start,0,end,0,,:", "pipe:", "-"]
)
def test_what_is_no_plain_path(
    prefix: str, clip: Callable[[str], Path], recordings: Path, examine: Callable[..., MediaInfo]
) -> None:
    path = shutil.copy(clip("mp4"), recordings)
    assert type(refusal(examine, f"{prefix}{path}")) is RecordingRefused


def test_what_is_outside_the_roots(
    clip: Callable[[str], Path], recordings: Path, tmp_path: Path, examine: Callable[..., MediaInfo]
) -> None:
    outside = Path(shutil.copy(clip("mp4"), tmp_path / "outside.mp4"))
    (recordings / "link.mp4").symlink_to(outside)
    for source in (outside, "../outside.mp4", recordings / ".." / "outside.mp4", recordings / "link.mp4", "link.mp4"):
        assert type(refusal(examine, source)) is RecordingOutsideRoots
    examine(Path(shutil.copy(outside, recordings / "inside.mp4")))


@pytest.mark.timeout(20)
def test_what_is_no_file_does_not_hang(recordings: Path, examine: Callable[..., MediaInfo]) -> None:
    os.mkfifo(recordings / "pipe.mp4")
    assert "it is a pipe" in refusal(examine, recordings / "pipe.mp4").detail
    assert "it is a folder" in refusal(examine, recordings).detail


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"max_bytes": 1000}, "bytes, the limit is 1000"),
        ({"max_pixels": 320 * 180 - 1}, "320 × 180 pixels"),
        ({"max_duration_seconds": 3.5}, "it is 4 s long"),
    ],
)
def test_what_is_too_large(
    limit: dict[str, float],
    said: str,
    clip: Callable[[str], Path],
    recordings: Path,
    examine: Callable[..., MediaInfo],
) -> None:
    path = Path(shutil.copy(clip("mp4"), recordings))
    error = refusal(examine, path, **limit)
    assert type(error) is RecordingTooLarge
    assert said in error.detail
    examine(path)


def test_pixels_that_are_said_to_be_more_than_there_can_be(
    clip: Callable[[str], Path], recordings: Path, examine: Callable[..., MediaInfo]
) -> None:
    """65,535 × 65,535 in the sample entry of a small file."""
    data = clip("mp4").read_bytes()
    entry = data.index(b"avc1", data.index(b"stsd"))
    path = recordings / "vast.mp4"
    path.write_bytes(data[: entry + 28] + struct.pack(">HH", 65535, 65535) + data[entry + 32 :])
    try:
        info = examine(path)
    except RecordingTooLarge:
        return
    assert (info.video.width, info.video.height) == (320, 180)  # what is really in it


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("truncated-ts", "breaks off at 2."),
        ("truncated-flv", "s of the declared 4.0 s are missing"),
        ("truncated-mkv", "s of the declared 4.0 s are missing"),
        ("truncated-fragmented", "breaks off at 2."),
    ],
)
def test_what_breaks_off_is_used_as_far_as_it_goes(
    name: str, says: str, clip: Callable[[str], Path], recordings: Path, examine: Callable[..., MediaInfo]
) -> None:
    info = examine(Path(shutil.copy(clip(name), recordings)))
    notes = {note.code: note.detail for note in info.notes}
    assert says in notes["recording-truncated"]
    assert 2.0 < info.duration_seconds < 3.5


def test_an_index_that_promises_more_than_there_is(
    clip: Callable[[str], Path], recordings: Path, tmp_path: Path
) -> None:
    """The moov came first, and then the file was cut off: neither picture nor sound goes on as long as it says."""
    ffmpeg("-i", str(clip("mp4")), "-c", "copy", "-movflags", "faststart", str(recordings / "whole.mp4"))
    data = (recordings / "whole.mp4").read_bytes()
    (recordings / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    made = Production(recordings / "cut.mp4", tmp_path, media_settings(tmp_path, recordings))
    notes = {note.code: note.detail for note in made.info.notes}
    assert "s of the declared 4.0 s are missing" in notes["recording-truncated"]
    assert "audio-cut" not in notes
    assert made.info.audio[0].end_seconds < 3
    made.make_chunks()
    made.make_audio()
    assert len(decode_video(made.whole("180p"))[0]) == made.plan.frames < 110


def test_a_file_that_is_still_being_written_is_waited_for(
    clip: Callable[[str], Path], recordings: Path, tmp_path: Path
) -> None:
    """The hook was sent before the media server had closed the file."""
    data = clip("ts").read_bytes()
    path = recordings / "growing.ts"
    path.write_bytes(data[: len(data) // 2])

    def go_on() -> None:
        with path.open("ab") as file:
            for start in range(len(data) // 2, len(data), 40_000):
                time.sleep(0.2)
                file.write(data[start : start + 40_000])
                file.flush()

    thread = threading.Thread(target=go_on)
    thread.start()
    job = RecordingJob(replay_id="r", source=str(path), prefix="replays/r/")
    store = LocalStore(tmp_path / "store", durable=False)
    info = examine_recording(job, store, media_settings(tmp_path, recordings), Work("x", 60))
    thread.join()
    assert path.stat().st_size == len(data)
    assert info.video.frames == 120
    assert info.notes == ()


def test_a_damaged_middle_is_bridged(clip: Callable[[str], Path], recordings: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(clip("noise-in-ts"), recordings))
    made = Production(source, tmp_path, media_settings(tmp_path, recordings))
    assert "recording-corrupt" in {note.code for note in made.info.notes}
    made.make_chunks()
    made.make_audio()
    assert len(decode_video(made.whole("180p"))[0]) == made.plan.frames == 120


def test_what_comes_before_the_first_keyframe_is_left_out(
    clip: Callable[[str], Path], recordings: Path, examine: Callable[..., MediaInfo]
) -> None:
    info = examine(Path(shutil.copy(clip("headless-ts"), recordings)))
    notes = {note.code: note.detail for note in info.notes}
    assert notes["video-starts-late"] == "the first 0.67 s cannot be decoded: no keyframe"
    assert info.video.frames == 90


@pytest.mark.parametrize("suffix", ["mp4", "ts", "m3u8", "mkv"])
def test_a_playlist_under_any_name_asks_for_nothing(
    suffix: str, canary: Canary, recordings: Path, examine: Callable[..., MediaInfo]
) -> None:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{canary.url('segment.ts')}\n#EXT-X-ENDLIST\n"
    manifest = f'<?xml version="1.0"?><MPD type="static"><BaseURL>{canary.url("v.mp4")}</BaseURL></MPD>'
    for text in (
        playlist,
        "\ufeff\n  " + playlist.lower(),
        f"ffconcat version 1.0\nfile {canary.url('a.mp4')}\n",
        manifest,
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ):
        path = recordings / f"list.{suffix}"
        path.write_text(text)
        assert type(refusal(examine, path)) is RecordingRefused
    assert canary.requests == []


def test_a_reference_to_data_elsewhere_is_not_followed(
    clip: Callable[[str], Path], recordings: Path, examine: Callable[..., MediaInfo]
) -> None:
    """A MOV may say that its samples are in another file."""
    target = Path(shutil.copy(clip("mp4"), recordings / "elsewhere.mp4"))
    path = recordings / "reference.mov"
    path.write_bytes(refer(target.read_bytes(), target.name))
    with av.open(str(path), options={"enable_drefs": "1"}) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 120  # it could be
    refusal(examine, path)


def refer(data: bytes, name: str) -> bytes:
    """An MP4 without its samples, each track's `dref` naming a file beside it: an alias of QuickTime's, which is what
    libavformat understands."""
    alias = (
        bytes(10) + b"\1v" + bytes(26 + 12) + b"\1f" + bytes(62 + 16) + struct.pack(">HH", 1, 1) + bytes(16)
        + struct.pack(">HH", 2, len(name) + 3) + b"/x/" + name.encode() + bytes((len(name) + 3) % 2)
        + struct.pack(">HH", 0xFFFF, 0)
    )  # fmt: skip
    ours = b"\0\0\0\1" + struct.pack(">I", len(alias) + 12) + b"alis" + bytes(4) + alias
    theirs = b"\0\0\0\1" + struct.pack(">I", 12) + b"url \0\0\0\1"
    moov = bytearray(data[data.index(b"moov") - 4 :])
    place = 0
    while (place := moov.find(theirs, place)) >= 0:
        moov[place : place + len(theirs)] = ours
        for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
            at = moov.rfind(box, 0, place) - 4
            size = struct.unpack_from(">I", moov, at)[0]
            struct.pack_into(">I", moov, at, size + len(ours) - len(theirs))
        place += len(ours)
    return data[: data.index(b"mdat") - 4] + bytes(moov)


def test_the_options_hold_for_both_libraries(canary: Canary, recordings: Path, tmp_path: Path) -> None:
    """Should a list get past the look at its first bytes, neither PyAV nor ffmpeg would follow it."""
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{canary.url('segment.ts')}\n#EXT-X-ENDLIST\n"
    (recordings / "list.m3u8").write_text(playlist)
    with pytest.raises(av.error.FFmpegError):
        av.open(str(recordings / "list.m3u8"), options={"protocol_whitelist": "file,http,tcp"})
    assert canary.requests == ["/segment.ts"]  # it could be
    canary.requests.clear()
    for name, text in (
        ("list.m3u8", playlist),
        ("list.ffconcat", f"ffconcat version 1.0\nfile {canary.url('a.mp4')}\n"),
    ):
        path = recordings / name
        path.write_text(text)
        address = locate(str(path), LocalStore(tmp_path / "store"))
        options = open_options(address)
        with pytest.raises(av.error.FFmpegError):
            av.open(address, options=options)
        arguments = [part for name, value in options.items() for part in (f"-{name}", value)]
        done = subprocess.run(
            [ffmpeg_path(MediaSettings()), "-v", "error", "-nostdin", *arguments, "-i", address, "-f", "null", "-"],
            capture_output=True,
        )
        assert done.returncode != 0
    assert canary.requests == []


def test_sound_nobody_can_decode_is_left_out(recordings: Path, examine: Callable[..., MediaInfo]) -> None:
    """A file that announces sound, and whose sound never says what it is."""
    path = recordings / "announced.ts"
    Recipe(Source(frames=60, size=(160, 90)), (*h264(), *AAC))(path)
    data = bytearray(path.read_bytes())
    sound = 257  # ffmpeg's second PID
    for at in range(0, len(data), 188):
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == sound:
            data[at + 40 : at + 188] = bytes(148)
            data[at + 4 : at + 6] = data[at + 4 : at + 6]
    path.write_bytes(data)
    info = examine(path)
    assert info.video.frames == 60
    for track in info.audio:
        assert track.sample_rate > 0
        assert track.channels > 0


def test_looking_can_be_cancelled_and_has_a_deadline(
    clip: Callable[[str], Path], recordings: Path, examine: Callable[..., MediaInfo]
) -> None:
    path = Path(shutil.copy(clip("mp4"), recordings))
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        examine(path, Work("x", 60, cancelled=cancelled))
    with pytest.raises(DeadlineExceeded):
        examine(path, Work("x", 0))


def test_kinds_of_errors() -> None:
    """That none of these is tried again."""
    for kind in (RecordingMissing, RecordingNotMedia, RecordingRefused, RecordingTooLarge, RecordingWithoutVideo):
        assert not kind.retryable
