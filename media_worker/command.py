"""(job, address, folder, way) → ffmpeg arguments. Pure: the same job gives the same command, tested by comparing whole
ones.

One process decodes a chunk once and encodes every rung from it. The filter graph is built with ffmpeg-python.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ffmpeg

from control.bus.messages import ChunkJob, Rung, VideoTrack
from media_worker.encoders.table import encoder
from media_worker.encoders.tiers import ON_CPU, Filter, Tier, Way
from media_worker.source import open_options

QUIET: Final = (
    "-hide_banner",
    "-nostdin",  # a worker has no keyboard
    "-nostats",
    "-loglevel", "level+error",
    "-y",  # the folder is ours alone; a file in it is a torn earlier try
    "-progress", "pipe:1",  # machine-readable progress; stderr is for errors alone
    "-stats_period", "2",  # every second one is told of (`Work`)
)  # fmt: skip

# Final CMAF from each process: a fragment starts at each IDR, times are absolute, nothing hides in an edit list.
CMAF: Final = {
    "f": "mp4",
    "movflags": "frag_keyframe+empty_moov+default_base_moof+frag_discont+negative_cts_offsets",
    "use_editlist": 0,
    "avoid_negative_ts": "disabled",
    "write_tmcd": 0,
    # Nothing of the source's tags, chapters or encoder strings: init segments must be the same for all chunks.
    "map_metadata": -1,
    "map_chapters": -1,
    "fflags": "+bitexact",
}

# HDR is BT.2020 (ITU-R BT.2100) unless it says that it is not: many encoders tag the transfer alone.
_HDR_PRIMARIES: Final = {"1": "bt709", "11": "smpte431", "12": "smpte432"}  # ITU-T H.273, table 2
_HDR_MATRICES: Final = {"1": "bt709"}  # table 4
# PQ or HLG → SDR at BT.709: linear light, gamut, Hable's curve, back to gamma.
_TONE_MAP: Final = (
    ("zscale", {"transfer": "linear", "npl": 100}),
    ("format", {"pix_fmts": "gbrpf32le"}),
    ("zscale", {"primaries": "bt709"}),
    ("tonemap", {"tonemap": "hable", "desat": 0}),
    ("zscale", {"transfer": "bt709", "matrix": "bt709", "range": "limited"}),
)


def chunk_command(ffmpeg_path: str, job: ChunkJob, address: str, folder: Path, way: Way = ON_CPU) -> list[str]:
    """The command that makes `folder/{rung}.mp4` for every rung of the job's chunk: those of encoders of the way's
    device on it, the others on the CPU."""
    source = _source(address, job.video, job.chunk.entry_pts, way.tier)
    base = _grid(source[str(job.video.index)], job)
    outputs = [
        ffmpeg.output(
            picture,
            str(folder / f"{rung.name}.mp4"),
            **encoder(rung.encoder).options(rung, job.gop_frames // rung.frame_step, job.preset, job.threads),
            # The graph has put every frame in its place; the muxer must neither drop nor repeat one.
            fps_mode="passthrough",
            enc_time_base=str(1 / rung.frame_rate),
            video_track_timescale=rung.timescale,
            **CMAF,
        )
        for rung, picture in _cascade(base, job, way.tier)
    ]
    graph = ffmpeg.merge_outputs(*outputs).global_args(
        *QUIET,
        # Absolute times from source to segment, whatever the place the source is entered at.
        "-copyts",
        # Parallelism comes from chunks; threads inside one only add waiting.
        "-filter_complex_threads", "1",
        *way.device.global_options,
    )  # fmt: skip
    return [str(argument) for argument in graph.compile(cmd=ffmpeg_path)]


def _source(address: str, video: VideoTrack, entry_pts: int | None, tier: Tier) -> Any:
    options: dict[str, Any] = {
        **open_options(address),
        **tier.input_options,
        "threads": 1,
        # A damaged stretch is bridged by the frame before it; it must not end the chunk.
        "max_error_rate": 1,
        # A live may change its picture size midway; the scalers follow, the grid's count must not start anew.
        "reinit_filter": 0,
    }
    if entry_pts is not None:
        microseconds = -(-entry_pts * video.time_base.numerator * 1_000_000 // video.time_base.denominator)
        # Absolute, rounded up: a microsecond early would enter one whole GOP earlier.
        options |= {"seek_timestamp": 1, "ss": f"{microseconds / 1_000_000:.6f}"}
        # Whole GOPs come out; the graph trims to the frame, which `-ss` alone does by time.
        options["noaccurate_seek"] = None
    return ffmpeg.input(address, **options)


def _grid(picture: Any, job: ChunkJob) -> Any:
    """Put the decoded frames on the replay's grid and keep the chunk's own: exactly `chunk.frames`, never fewer."""
    chunk, video = job.chunk, job.video
    picture = picture.filter(
        "setpts", f"PTS-{video.origin_pts}" if video.origin_pts >= 0 else f"PTS+{-video.origin_pts}"
    )
    if video.interlaced:
        picture = picture.filter("bwdif", mode="send_frame", deint="all")
    return (
        picture.filter("fps", fps=str(job.frame_rate), round="near", eof_action="pass")
        # Where the source ends early or stops decoding, its last picture stands until the chunk's end.
        .filter("tpad", stop=-1, stop_mode="clone")
        .filter("trim", start_pts=chunk.first_frame, end_pts=chunk.first_frame + chunk.frames)
    )


@dataclass(frozen=True)
class _Picture:
    """A stream of pictures, and whether they are on the device."""

    stream: Any
    on_device: bool


def _cascade(base: Any, job: ChunkJob, tier: Tier) -> list[tuple[Rung, Any]]:
    """Each rung scaled from the next larger one that has the frames it needs: far fewer pixels than from the source."""
    rungs = sorted(job.rungs, key=lambda rung: -rung.width * rung.height)
    feeder = {rung.name: _feeder(rung, rungs[:number]) for number, rung in enumerate(rungs)}
    taps: dict[str, Any] = {}
    base_users = sum(parent is None for parent in feeder.values())
    base_taps = base.filter_multi_output("split") if base_users > 1 else None
    pictures: dict[str, Any] = {}
    used: dict[str, int] = {}
    on_device = {rung.name: tier.kind != "cpu" and encoder(rung.encoder).kind == tier.kind for rung in rungs}
    for rung in rungs:
        parent = feeder[rung.name]
        if parent is None:
            number = used[""] = used.get("", -1) + 1
            stream = base_taps[number] if base_taps is not None else base
            picture = _first_scale(_thin_out(stream, rung.frame_step), rung, job.video, tier)
        else:
            number = used[parent.name] = used.get(parent.name, 0) + 1
            stream = _thin_out(taps[parent.name][number], rung.frame_step // parent.frame_step)
            picture = _scale(_Picture(stream, on_device[parent.name]), rung, tier)
        stream = _moved(picture, on_device[rung.name], tier)
        if any(other is not None and other.name == rung.name for other in feeder.values()):
            taps[rung.name] = stream.filter_multi_output("split")
            stream = taps[rung.name][0]
        pictures[rung.name] = stream
    return [(rung, pictures[rung.name]) for rung in job.rungs]


def _feeder(rung: Rung, larger: Sequence[Rung]) -> Rung | None:
    fitting = [
        other
        for other in larger
        if other.width >= rung.width and other.height >= rung.height and other.frame_step <= rung.frame_step
    ]
    return fitting[-1] if fitting else None


def _thin_out(picture: Any, step: int) -> Any:
    return picture.filter("framestep", step) if step > 1 else picture


def _first_scale(stream: Any, rung: Rung, video: VideoTrack, tier: Tier) -> _Picture:
    """From the source's pictures, whatever they are, to plain ones of the rung's size."""
    if tier.decodes:
        scaled = _scale(_Picture(stream, on_device=True), rung, tier)
        # What is not marked is limited range; marked it gives the same parameter sets as a tier that scales it so.
        return _Picture(scaled.stream.filter("setparams", range="limited"), on_device=True)
    if video.hdr:
        stream = stream.filter(
            "setparams",
            color_primaries=_HDR_PRIMARIES.get(video.color_primaries or "", "bt2020"),
            colorspace=_HDR_MATRICES.get(video.color_space or "", "bt2020nc"),
        )
    stream = stream.filter("scale", rung.width, rung.height, flags="bicubic", out_range="limited")
    stream = _through(stream, _TONE_MAP if video.hdr else ())
    return _Picture(stream.filter("format", pix_fmts="yuv420p").filter("setsar", 1), on_device=False)


def _scale(picture: _Picture, rung: Rung, tier: Tier) -> _Picture:
    """To the rung's size, where the picture is."""
    if picture.on_device:
        name, options = tier.scale
        scaled = picture.stream.filter(name, w=rung.width, h=rung.height, **options)
    else:
        scaled = picture.stream.filter("scale", rung.width, rung.height, flags="bicubic")
    return _Picture(scaled.filter("setsar", 1), picture.on_device)


def _moved(picture: _Picture, on_device: bool, tier: Tier) -> Any:
    """To where its encoder is."""
    if picture.on_device == on_device:
        return picture.stream
    return _through(picture.stream, tier.upload if on_device else tier.download)


def _through(stream: Any, filters: Iterable[Filter]) -> Any:
    for name, options in filters:
        stream = stream.filter(name, **options)
    return stream
