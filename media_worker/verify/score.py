"""Scores each rendition against the recording it was made from: VMAF where ffmpeg has it, PSNR and SSIM.

Scoring takes many times what decoding takes, so a few segments spread over the replay stand for all of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from control.bus.messages import VideoTrack
from control.bus.work import Work
from control.errors import AfterliveError, EncoderFailed, InputError
from control.settings import Settings
from control.storage import open_store
from media_worker.ffmpeg import ffmpeg_path
from media_worker.probe import probe
from media_worker.runner import run
from media_worker.scratch import scratch
from media_worker.source import locate
from media_worker.verify.facts import MeasuredSegment, Rendition
from media_worker.verify.fetch import Fetcher, FetchError, address
from media_worker.verify.presentation import load
from media_worker.verify.read import read
from media_worker.verify.report import Score, VerifyError
from media_worker.verify.scoring import Compared, Stretch, compared_size, mean, psnr_db, read_scores, score_command

_SUMMARY: Final = "replay.json"
_LIMIT_SECONDS: Final = 24 * 3600.0
_NO_VMAF: Final = "No such filter: 'libvmaf'"


def score(
    master: str,
    source: str | None,
    settings: Settings,
    *,
    segments: int = 10,
    on_playlist: Callable[[str], None] | None = None,
) -> tuple[Score, ...]:
    """Score the video renditions of the HLS at `master` against `source`, a file; best first as the master has them.

    Frame 0 of the replay is taken to be the first frame of the source that can be decoded. `source` None: what the
    replay.json beside a local `master` names. `segments` spread over each rendition are looked at, 0 is all of them.
    Raises VerifyError.
    """
    try:
        url = address(master)
        fetcher = Fetcher(url)
        named = source or _source_of(url)
        where = locate(named, open_store(settings.storage))
        video = probe(named, where, settings.media, Work("score", _LIMIT_SECONDS)).info.video
    except (FetchError, InputError) as error:
        raise VerifyError(str(error)) from error
    if video.hdr:
        raise VerifyError(f"{named} is HDR: a rung is tone-mapped, and means to look different")
    judge = _Judge(fetcher, where, video, settings)
    scores = []
    for playlist in {each.playlist.where: each.playlist for each in load(url, fetcher).variants}.values():
        if on_playlist:
            on_playlist(playlist.where)
        rendition = read(playlist, fetcher, decode=False)
        if rendition.format("video") or not rendition.formats:  # nothing of it could be read: that is said
            scores.append(judge.score(rendition, segments))
    if not scores:
        raise VerifyError(f"{master} has no video to score")
    return tuple(scores)


def _source_of(url: str) -> str:
    """A stranger's server must not choose which of our files is read: only what lies here is asked."""
    hint = "say which recording it was made from (--source)"
    if urlsplit(url).scheme != "file":
        raise VerifyError(f"{url} is not on this machine: {hint}")
    path = Path(url2pathname(urlsplit(url).path)).with_name(_SUMMARY)
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["source"]["source"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VerifyError(f"{path} does not name a recording: {hint}") from error


class _Judge:
    """Compares stretches with one source. That ffmpeg has no VMAF is found out once."""

    def __init__(self, fetcher: Fetcher, where: str, video: VideoTrack, settings: Settings) -> None:
        self._fetcher, self._where, self._video, self._settings = fetcher, where, video, settings
        self._ffmpeg = ffmpeg_path(settings.media)
        self._vmaf_threads = os.cpu_count() or 1

    def score(self, rendition: Rendition, segments: int) -> Score:
        lasts = rendition.frame_seconds("video")
        readable = [each for each in rendition.segments if not each.problem and each.piece("video")]
        if not readable or not lasts:
            raise VerifyError(f"{rendition.where} has no segment that can be scored")
        begin = min(piece.begin for piece in rendition.pieces("video"))
        compared = []
        for segment in spread(readable, segments):
            piece = segment.piece("video")
            assert piece  # noqa: S101  # the filter above
            stretch = Stretch(round((piece.begin - begin) / lasts), piece.samples, 1 / lasts)
            compared.append(self._compare(segment, stretch))
        felt = [each.vmaf for each in compared if each.vmaf is not None]
        width, height = compared_size(self._video)
        return Score(
            rendition=rendition.where,
            width=width,
            height=height,
            segments=len(compared),
            frames=sum(each.frames for each in compared),
            vmaf=round(mean(felt, compared), 2) if felt else None,
            vmaf_lowest=round(min(felt), 2) if felt else None,
            psnr_db=round(psnr_db(compared), 2),
            ssim=round(mean([each.ssim for each in compared], compared), 5),
        )

    def _compare(self, segment: MeasuredSegment, stretch: Stretch) -> Compared:
        with scratch(self._settings.media) as folder:
            # Its name tells nothing; what it is, the decoder finds out.
            path = folder / "segment"
            try:
                init = self._fetcher.segment(segment.told.init) if segment.told.init else b""
                path.write_bytes(init + self._fetcher.segment(segment.told.ref))
                self._run(path, stretch, folder)
                found = read_scores(folder, vmaf=self._vmaf_threads > 0)
            except (AfterliveError, FetchError, OSError, ValueError, KeyError) as error:
                raise VerifyError(f"{segment.told.where} cannot be scored: {error}") from error
        if found.frames != stretch.frames:
            raise VerifyError(f"{segment.told.where}: only {found.frames} of {stretch.frames} frames could be compared")
        return found

    def _run(self, path: Path, stretch: Stretch, folder: Path) -> None:
        command = score_command(
            self._ffmpeg, self._where, self._video, path, stretch, folder, vmaf_threads=self._vmaf_threads
        )
        try:
            # Somebody waits for it at a terminal.
            run(command, Work("score", _LIMIT_SECONDS), total_frames=stretch.frames, gives_way=False)
        except EncoderFailed as error:
            if not self._vmaf_threads or _NO_VMAF not in str(error):
                raise
            self._vmaf_threads = 0
            self._run(path, stretch, folder)


def spread(found: Sequence[MeasuredSegment], count: int) -> list[MeasuredSegment]:
    """`count` of `found`, evenly; all where there are no more, or `count` is 0."""
    if not count or len(found) <= count:
        return list(found)
    return [found[(2 * number + 1) * len(found) // (2 * count)] for number in range(count)]
