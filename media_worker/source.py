"""How a recording is opened: a media file is hostile input, so protocols and formats are named, not guessed.

A recording is a local path (already inside the allowed roots, see `control.recordings`), an object of the store
(`store:KEY`), or a presigned link to one. Anything that could make a demuxer open something else (playlists,
concat scripts, devices) is not on the list of formats.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

from control.errors import RecordingMissing, RecordingRefused
from control.storage import ObjectStore
from control.storage.sources import STORE_SCHEME
from media_worker.boxes import BoxError, iter_boxes

_LINK_SECONDS: Final = 6 * 3600

# libavformat's demuxer names. No hls, dash, concat, image2, lavfi, sdp, rtp: they read other addresses.
FORMATS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,flv,live_flv,mpegts,mpeg,mpegvideo,avi,asf,ogg,mxf,h264,hevc,ivf"
)

# What a text that names other files starts with, and what to call it in the refusal.
_DISGUISES: Final = (
    (b"#EXTM3U", "it is an HLS playlist, not a recording"),
    (b"ffconcat", "it is a list of other files (ffconcat), not a recording"),
    (b"file ", "it is a list of other files (concat), not a recording"),
    (b"v=0", "it is a session description (SDP), not a recording"),
    (b"[playlist]", "it is a playlist, not a recording"),
)


def locate(source: str, store: ObjectStore) -> str:
    """The address PyAV and ffmpeg may open: `file:PATH` or an https link. Raises RecordingMissing."""
    if not source.startswith(STORE_SCHEME):
        return f"file:{source}"
    key = source.removeprefix(STORE_SCHEME)
    if path := store.local_path(key):
        return f"file:{path}"
    if link := store.read_url(key, _LINK_SECONDS):
        return link
    raise RecordingMissing(source=source)


def open_options(address: str) -> dict[str, str]:
    """libavformat options for `address`: only its own protocol, only the formats of recordings."""
    protocols = "file" if address.startswith("file:") else "https,tls,tcp,http"
    return {"protocol_whitelist": protocols, "format_whitelist": FORMATS}


def refuse_disguise(source: str, address: str) -> None:
    """Raise RecordingRefused where the file is a text that would make a demuxer read other addresses."""
    if not address.startswith("file:"):
        return
    with Path(address.removeprefix("file:")).open("rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    for prefix, reason in _DISGUISES:
        if head[: len(prefix)].lower() == prefix.lower():
            raise RecordingRefused(source=source, reason=reason)
    if head.startswith(b"<") and b"<MPD" in head:
        raise RecordingRefused(source=source, reason="it is a DASH manifest, not a recording")


def what_is_missing(address: str) -> str | None:
    """Why a file that looks like an MP4 cannot be opened: its index is written last, so a crash leaves it out. None
    where it is something else."""
    if not address.startswith("file:"):
        return None
    try:
        with (
            Path(address.removeprefix("file:")).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            boxes = {box.type for box in iter_boxes(view, truncated=True)}
    except (BoxError, ValueError):
        return None  # no boxes, or nothing at all
    if "mdat" in boxes and "moov" not in boxes:
        return "it was cut off before its index (moov) was written, and without that nothing in it can be found"
    return None
