"""How a recording is addressed, and what gives a text in disguise away."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.errors import ObjectKeyInvalid, RecordingMissing, RecordingRefused
from control.storage import LocalStore
from media_worker.source import FORMATS, locate, open_options, refuse_disguise, what_is_missing
from tests.unit.test_boxes import FTYP, box

# Demuxers that read what their input names, and devices.
DANGEROUS = {
    "hls", "applehttp", "dash", "concat", "concatf", "image2", "image2pipe", "lavfi", "sdp", "rtp", "rtsp", "tee",
    "imf", "webm_dash_manifest", "libopenmpt", "v4l2", "video4linux2", "x11grab", "pulse", "alsa", "fbdev", "kmsgrab",
}  # fmt: skip


class Cloud(LocalStore):
    """A store that is no folder to its users: it gives links."""

    def local_path(self, key: str) -> Path | None:
        super().local_path(key)  # it refuses the same keys
        return None

    def read_url(self, key: str, seconds: int) -> str | None:
        assert seconds >= 3600  # as long as the longest task
        return f"https://bucket.example/{key}?expires={seconds}" if self.size(key) else None


def test_a_path_is_a_file_and_nothing_else(local_store: LocalStore) -> None:
    assert locate("/recordings/a.mp4", local_store) == "file:/recordings/a.mp4"
    assert locate("/recordings/http:x?y#z.mp4", local_store) == "file:/recordings/http:x?y#z.mp4"


def test_an_object_of_a_folder_is_its_file(local_store: LocalStore) -> None:
    local_store.put_bytes("replays/r/.work/source.mkv", b"x")
    address = locate("store:replays/r/.work/source.mkv", local_store)
    assert address == f"file:{local_store.root}/replays/r/.work/source.mkv"


def test_an_object_of_a_cloud_is_a_link(tmp_path: Path) -> None:
    store = Cloud(tmp_path)
    store.put_bytes("a.mkv", b"x")
    assert locate("store:a.mkv", store).startswith("https://bucket.example/a.mkv?")
    with pytest.raises(RecordingMissing):
        locate("store:b.mkv", store)


def test_an_object_that_is_not_there(local_store: LocalStore) -> None:
    with pytest.raises(RecordingMissing):
        locate("store:replays/none.mkv", local_store)
    with pytest.raises(ObjectKeyInvalid):
        locate("store:../../etc/passwd", local_store)


def test_an_address_opens_with_its_own_protocol_alone() -> None:
    assert open_options("file:/a.mp4") == {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    link = open_options("https://bucket.example/a.mkv")
    assert "file" not in link["protocol_whitelist"].split(",")
    assert link["format_whitelist"] == FORMATS


def test_no_format_reads_other_addresses() -> None:
    assert not set(FORMATS.split(",")) & DANGEROUS
    assert {"mov", "mp4", "matroska", "webm", "flv", "mpegts"} <= set(FORMATS.split(","))


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"#EXTM3U\n#EXT-X-VERSION:3\n", "HLS playlist"),
        (b"\xef\xbb\xbf#EXTM3U", "HLS playlist"),
        (b" \r\n\t#extm3u", "HLS playlist"),
        (b"ffconcat version 1.0\nfile a.mp4\n", "ffconcat"),
        (b"file 'a.mp4'\nfile 'b.mp4'\n", "concat"),
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\n", "SDP"),
        (b"[playlist]\nFile1=http://x/\n", "playlist"),
        (b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011">', "DASH manifest"),
        (b"<!-- " + b"x" * 3000 + b" --><MPD>", "DASH manifest"),
    ],
)
def test_a_text_that_names_other_files_is_refused(head: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "recording.mp4"
    path.write_bytes(head)
    with pytest.raises(RecordingRefused, match=what):
        refuse_disguise(str(path), f"file:{path}")


@pytest.mark.parametrize("head", [b"", b"\0\0\0\x20ftypisom", b"\x47" + bytes(187), b"<html>", b"FLV\x01", b"v=1"])
def test_other_beginnings_are_left_to_the_library(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recording.mp4"
    path.write_bytes(head)
    refuse_disguise(str(path), f"file:{path}")


def test_a_link_is_not_looked_into() -> None:
    refuse_disguise("store:a", "https://bucket.example/a")
    assert what_is_missing("https://bucket.example/a") is None


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (FTYP + box("free") + box("mdat", bytes(100)), True),
        ((FTYP + box("mdat", bytes(100)))[:-50], True),
        (FTYP + box("mdat", bytes(100)) + box("moov"), False),
        (FTYP + box("moov") + box("mdat", bytes(9)), False),
        (FTYP, False),
        (b"", False),
        (b"\x47" + bytes(187), False),
    ],
)
def test_an_mp4_without_its_index_is_told_from_the_rest(data: bytes, missing: bool, tmp_path: Path) -> None:
    path = tmp_path / "recording.mp4"
    path.write_bytes(data)
    said = what_is_missing(f"file:{path}")
    assert (said is not None) == missing
    assert said is None or "before its index (moov) was written" in said
