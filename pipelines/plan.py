"""How a recording becomes a replay: grid, chunks, audio. A pure function of (facts, ladder, settings).

The replay's clock is a grid of whole frames; frame 0 is the recording's first decodable frame. A chunk is a run of
whole segments on that grid, so chunks need no join: any of them can be made anywhere, at any time, in any order.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from control.bus.messages import AudioRendition, AudioTrack, Chunk, MediaInfo, Plan, RungChoice, VideoTrack
from control.settings import MediaSettings
from pipelines.content import fit_to_content
from pipelines.ladder import Step, make_rungs, read_ladder
from pipelines.pinning import SOFTWARE

_GOP_SECONDS: Final = 2
_GOPS_A_SEGMENT: Final = 3
_MOST_FPS: Final = 60
_FEWEST_CHUNKS: Final = 6  # a short recording is cut finer, so that it too fills a worker's cores to the end
_MOST_AUDIO: Final = 8
_BISECTED: Final = ("mpegts", "mpeg")  # libavformat's names of containers without an index
_AAC_FRAME: Final = 1024  # samples
_SOFTEST_CUT_SECONDS: Final = 0.0125  # copied audio starts on a packet: half an AAC frame off at most


def make_plan(info: MediaInfo, settings: MediaSettings, ladder: Sequence[Step] | None = None) -> Plan:
    """Plan the replay of `info`. `ladder` None: the settings' file, else Apple's table. Raises LadderInvalid."""
    if ladder is None and settings.ladder:
        ladder = read_ladder(settings.ladder)
    video = info.video
    rate = video.frame_rate / max(1, math.ceil(video.frame_rate / _MOST_FPS))
    frames = grid_frames(video, rate)
    rungs = make_rungs(video, rate, ladder)
    choices: tuple[RungChoice, ...] = ()
    if ladder is None and settings.content_aware and info.complexity:
        rungs, choices = fit_to_content(rungs, info, info.complexity)
    gop = max(1, round(_GOP_SECONDS * rate))
    if any(rung.frame_step == 2 for rung in rungs):
        gop = round(gop / 2) * 2  # a rung of every second frame needs whole frames too
    segment = gop * _GOPS_A_SEGMENT
    # By any node; where there are devices for it, its rungs are pinned to them.
    rungs = tuple(rung.model_copy(update={"encoder": SOFTWARE[settings.codec]}) for rung in rungs)
    return Plan(
        frame_rate=rate,
        frames=frames,
        gop_frames=gop,
        segment_frames=segment,
        rungs=rungs,
        ladder=choices,
        chunks=tuple(make_chunks(video, rate, frames, segment, settings.chunk_seconds, run_up=_run_up(info))),
        audio=tuple(make_audio(info, frames / rate, settings.normalise_lufs)),
        preset=settings.preset,
        normalise_lufs=settings.normalise_lufs,
    )


def grid_frames(video: VideoTrack, rate: Fraction) -> int:
    """Length of the replay in frames: the video's extent on the grid, at least one."""
    return max(1, round((video.end_pts - video.origin_pts) * video.time_base * rate))


def make_chunks(
    video: VideoTrack,
    rate: Fraction,
    frames: int,
    segment_frames: int,
    chunk_seconds: float,
    *,
    run_up: int = 0,
) -> list[Chunk]:
    """Cut the grid into runs of whole segments, about `chunk_seconds` each, the last few shorter.

    Of the cuts one segment around the wanted length, the one nearest behind a keyframe is taken: what lies between
    the two must be decoded and thrown away. The source is entered `run_up` keyframes before that one.
    """
    slots = [round((time - video.origin_pts) * video.time_base * rate) for time in video.keyframes]
    segments = math.ceil(frames / segment_frames)
    wanted = max(1, round(Fraction(chunk_seconds) * rate / segment_frames))
    wanted = min(wanted, math.ceil(segments / _FEWEST_CHUNKS))
    chunks: list[Chunk] = []
    first = 0
    while first < segments:
        # What is left is halved in the end: cores that work in parallel finish together, whatever their number.
        length = min(wanted, math.ceil((segments - first) / 2))
        if length == wanted > 2:
            lengths = (wanted, wanted - 1, wanted + 1)
            length = min(lengths, key=lambda n: _wasted(slots, (first + n) * segment_frames))
        start = first * segment_frames
        chunks.append(
            Chunk(
                index=len(chunks),
                first_frame=start,
                frames=min(length * segment_frames, frames - start),
                first_segment=first,
                entry_pts=_entry(video, slots, start, run_up),
            )
        )
        first += length
    return chunks


def _wasted(slots: list[int], frame: int) -> int:
    """Frames decoded in vain when entering for `frame`."""
    return frame - slots[max(0, bisect.bisect_right(slots, frame) - 1)]


def _entry(video: VideoTrack, slots: list[int], frame: int, run_up: int) -> int | None:
    """The keyframe `run_up` before the last one shown at or before `frame`; None is the start."""
    if frame == 0:
        return None
    found = bisect.bisect_right(slots, frame) - 1 - run_up
    return video.keyframes[found] if found > 0 else None


def _run_up(info: MediaInfo) -> int:
    """How many keyframes early to enter: a deinterlacer needs the pictures before the first; and in a stream without
    an index a seek lands by bisection, and a decoder that lands right before a keyframe may pass it over."""
    return int(info.video.interlaced) + int(info.container in _BISECTED)


def make_audio(info: MediaInfo, duration: Fraction, normalise_lufs: float | None) -> list[AudioRendition]:
    """A rendition for each audio track that sounds during the video, the first as default."""
    origin = info.video.origin_pts * info.video.time_base
    heard = [
        track
        for track in info.audio
        if track.start_seconds < float(origin + duration) and track.end_seconds > float(origin)
    ]
    return [
        AudioRendition(
            name="audio" if number == 1 else f"audio-{number}",
            track_index=track.index,
            mode="copy" if normalise_lufs is None and _copyable(track, float(origin), float(duration)) else "encode",
            sample_rate=44100 if track.sample_rate == 44100 else 48000,
            language=track.language,
            title=track.title,
            default=number == 1,
        )
        for number, track in enumerate(heard[:_MOST_AUDIO], 1)
    ]


def _copyable(track: AudioTrack, origin: float, duration: float) -> bool:
    """AAC-LC stereo already, without gaps, and there from the first frame to the last."""
    packet = _AAC_FRAME / track.sample_rate
    return (
        track.codec == "aac"
        and track.profile == "LC"
        and track.channels == 2
        and track.sample_rate in (44100, 48000)
        and not track.has_gaps
        and track.start_seconds <= origin + _SOFTEST_CUT_SECONDS
        and track.end_seconds >= origin + duration - packet
    )
