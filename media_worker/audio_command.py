"""ffmpeg arguments for a programme's audio: encode, copy, measure. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import ffmpeg

from control.bus.messages import AudioJob
from media_worker.command import CMAF, QUIET
from media_worker.scan import GAP_SECONDS
from media_worker.source import open_options

_AUDIO_CMAF: Final = {
    **{key: value for key, value in CMAF.items() if key != "use_editlist"},
    # `delay_moov` waits for the encoder's delay, so that the edit list that hides the priming samples is right.
    "movflags": "empty_moov+default_base_moof+delay_moov",
    "frag_duration": 6_000_000,
}
_PACKET_SAMPLES: Final = 1024  # AAC-LC


def encode_command(
    ffmpeg_path: str, job: AudioJob, address: str, out: Path, *, gain_db: float = 0.0, measure: bool = False
) -> list[str]:
    """The command that makes the whole programme's audio as one fragmented MP4, time 0 being the video's frame 0.

    With `measure`, the loudness of the source is printed as it goes by.
    """
    rendition = job.rendition
    start, length = job.origin_seconds, float(job.duration_seconds)
    options: dict[str, Any] = {**open_options(address), "threads": 1, "vn": None, "max_error_rate": 1}
    source = ffmpeg.input(address, **options)[str(rendition.track_index)]
    sound = _stereo(
        # Absolute times less the video's start; what was said before the first picture is dropped.
        source.filter("asetpts", f"PTS-{start:.9f}/TB")
        # Gaps become silence and late starts too, so that the sound stays with the picture; what is shorter than a
        # gap is stretched away.
        .filter("aresample", rendition.sample_rate, **{"async": 1000, "first_pts": 0, "min_hard_comp": GAP_SECONDS})
    )
    if measure:
        sound = _measured(sound)
    if gain_db:
        # A linear gain keeps the dynamics; the limiter only catches what the gain lifts over -1 dBFS, and makes good
        # the time it looks ahead.
        sound = sound.filter("volume", f"{gain_db:.2f}dB").filter("alimiter", limit=0.891, level=0, latency=1)
    sound = sound.filter("apad").filter("atrim", end=f"{length:.9f}")
    graph = ffmpeg.output(
        sound,
        str(out),
        **{"c:a": "aac", "b:a": f"{rendition.kbps}k", "ar": rendition.sample_rate, "ac": 2},
        **_AUDIO_CMAF,
    ).global_args(*QUIET, "-copyts", "-filter_complex_threads", "1")
    return [str(argument) for argument in graph.compile(cmd=ffmpeg_path)]


def copy_command(ffmpeg_path: str, job: AudioJob, address: str, out: Path) -> list[str]:
    """The command that copies the AAC packets that sound during the replay, and one before to prime the decoder."""
    track = job.track
    packet = _PACKET_SAMPLES / track.sample_rate
    start = job.origin_seconds - packet / 2
    primed = int(track.start_seconds < start)
    first, end = start - primed * packet, start + float(job.duration_seconds) + packet
    clock = f"(N-{primed})*{_PACKET_SAMPLES}"
    filters = (
        # Packets have no filter graph; these act on them as they pass. First, those that do not sound go.
        f"noise=drop='lt(pts*tb,{first:.6f})+gt(pts*tb,{end:.6f})'",
        # MPEG-TS carries each packet with a header of its own (ADTS); MP4 tells it once. Others pass as they are.
        "aac_adtstoasc",
        # A clock that counts packets: neither jitter nor coarse ticks of the source's own clock pass on.
        f"setts=time_base=1/{track.sample_rate}",
        f"setts=pts={clock}:dts={clock}:duration={_PACKET_SAMPLES}",
    )
    source = ffmpeg.input(address, **open_options(address))[str(track.index)]
    copy = ffmpeg.output(source, str(out), **{"c:a": "copy", "bsf:a": ",".join(filters)}, **_AUDIO_CMAF)
    return [str(argument) for argument in copy.global_args(*QUIET, "-copyts").compile(cmd=ffmpeg_path)]


def loudness_command(ffmpeg_path: str, address: str, track_index: int, *, strict: bool = False) -> list[str]:
    """The command that prints the integrated loudness so far (`lavfi.r128.I`, LUFS), ten times a second of sound.

    With `strict` it fails where a packet does not decode.
    """
    options: dict[str, Any] = {**open_options(address), "threads": 1, "vn": None, "max_error_rate": 0 if strict else 1}
    # As it will be heard: of 5.1 the mix, not the six.
    sound = _measured(_stereo(ffmpeg.input(address, **options)[str(track_index)]))
    return [str(argument) for argument in ffmpeg.output(sound, "-", f="null").global_args(*QUIET).compile(ffmpeg_path)]


def _stereo(sound: Any) -> Any:
    return sound.filter("aformat", sample_fmts="fltp", channel_layouts="stereo")


def _measured(sound: Any) -> Any:
    """EBU R 128, printed to stdout: metadata is for machines, the filter's log is not."""
    return sound.filter("ebur128", metadata=1).filter(
        # Line by line: a buffer full of them would end within a line, and ffmpeg's progress would come in between.
        "ametadata", mode="print", key="lavfi.r128.I", file="-", direct=1,
    )  # fmt: skip
