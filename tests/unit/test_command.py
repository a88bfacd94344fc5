"""Whole ffmpeg commands, compared argument by argument."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from control.bus.messages import AudioJob, AudioRendition, ChunkJob, MediaInfo
from control.errors import ConfigurationError
from control.settings import MediaSettings
from media_worker.audio_command import copy_command, encode_command, loudness_command
from media_worker.command import chunk_command
from pipelines.ladder import Step
from pipelines.plan import make_plan
from tests.unit.facts import audio, info, video

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,flv,live_flv,mpegts,mpeg,mpegvideo,avi,asf,ogg,mxf,h264,hevc,ivf"
ADDRESS = "file:/recordings/a.mp4"
QUIET = [
    "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+error", "-y",
    "-progress", "pipe:1", "-stats_period", "2",
]  # fmt: skip
LADDER = (Step(short_side=720, kbps=3000, fast_kbps=4500), Step(short_side=360, kbps=400, max_fps=30))
NTSC = Fraction(30000, 1001)


def command(recording: MediaInfo, number: int = 0, ladder: Sequence[Step] = LADDER) -> list[str]:
    plan = make_plan(recording, MediaSettings(_env_file=None), ladder)
    job = ChunkJob(
        replay_id="r", part=f"chunk-{number:05d}", source="/recordings/a.mp4", prefix="replays/r/",
        video=recording.video, chunk=plan.chunks[number], rungs=plan.rungs, frame_rate=plan.frame_rate,
        gop_frames=plan.gop_frames, segment_frames=plan.segment_frames, preset=plan.preset, threads=plan.threads,
    )  # fmt: skip
    return chunk_command("/bin/ffmpeg", job, ADDRESS, Path("/out"))


def whole(graph: Sequence[str], outputs: Sequence[list[str]], entry: Sequence[str] = ()) -> list[str]:
    seek = ["-seek_timestamp", "1", "-ss", *entry] if entry else []
    early = ["-noaccurate_seek"] if entry else []
    return [
        "/bin/ffmpeg",
        "-format_whitelist", FORMATS, "-max_error_rate", "1", *early, "-protocol_whitelist", "file",
        "-reinit_filter", "0", *seek, "-threads", "1",
        "-i", ADDRESS,
        "-filter_complex", ";".join(graph),
        *(argument for output in outputs for argument in output),
        *QUIET, "-copyts", "-filter_complex_threads", "1",
    ]  # fmt: skip


def rung(
    pad: str, name: str, kbps: tuple[int, int, int], gop: int, time_base: str = "1/30", timescale: int = 30000
) -> list[str]:
    """An output; kbps are average, maximum and buffer."""
    average, most, buffer = kbps
    return [
        "-map", f"[{pad}]",
        "-f", "mp4", "-avoid_negative_ts", "disabled",
        "-b:v", f"{average}k", "-bufsize", f"{buffer}k",
        "-c:v", "libx264", "-enc_time_base", time_base, "-fflags", "+bitexact", "-fps_mode", "passthrough",
        "-g", str(gop), "-keyint_min", str(gop), "-map_chapters", "-1", "-map_metadata", "-1",
        "-maxrate", f"{most}k",
        "-movflags", "frag_keyframe+empty_moov+default_base_moof+frag_discont+negative_cts_offsets",
        "-preset", "veryfast", "-profile:v", "high", "-sc_threshold", "0", "-threads", "1", "-use_editlist", "0",
        "-video_track_timescale", str(timescale), "-write_tmcd", "0",
        f"/out/{name}.mp4",
    ]  # fmt: skip


TOP, LOW = (3000, 4500, 6000), (400, 600, 800)


def test_the_first_chunk_reads_from_the_start_and_scales_in_a_cascade() -> None:
    assert command(info(video(seconds=60))) == whole(
        [
            "[0:0]setpts=PTS-0[s0]",
            "[s0]fps=eof_action=pass:fps=30:round=near[s1]",
            "[s1]tpad=stop=-1:stop_mode=clone[s2]",
            "[s2]trim=end_pts=360:start_pts=0[s3]",
            "[s3]scale=1280:720:flags=bicubic:out_range=limited[s4]",
            "[s4]format=pix_fmts=yuv420p[s5]",
            "[s5]setsar=1[s6]",
            "[s6]split=2[s7][s8]",
            "[s8]scale=640:360:flags=bicubic[s9]",
            "[s9]setsar=1[s10]",
        ],
        [rung("s7", "720p", TOP, 60), rung("s10", "360p", LOW, 60)],
    )


def test_another_chunk_is_entered_at_a_keyframe_by_absolute_time() -> None:
    """23.976 fps, a clock that starts at 1,400 s."""
    rate = Fraction(24000, 1001)
    recording = info(video(rate=rate, seconds=1440 / rate, origin_pts=1400 * 90000, keyframe_seconds=2.002))
    assert command(recording, 1) == whole(
        [
            "[0:0]setpts=PTS-126000000[s0]",
            "[s0]fps=eof_action=pass:fps=24000/1001:round=near[s1]",
            "[s1]tpad=stop=-1:stop_mode=clone[s2]",
            "[s2]trim=end_pts=576:start_pts=288[s3]",
            "[s3]scale=1280:720:flags=bicubic:out_range=limited[s4]",
            "[s4]format=pix_fmts=yuv420p[s5]",
            "[s5]setsar=1[s6]",
            "[s6]split=2[s7][s8]",
            "[s8]scale=640:360:flags=bicubic[s9]",
            "[s9]setsar=1[s10]",
        ],
        [
            rung("s7", "720p", TOP, 48, "1001/24000", 24000),
            rung("s10", "360p", LOW, 48, "1001/24000", 24000),
        ],
        entry=["1412.012000"],
    )


def test_sixty_frames_a_second_are_halved_for_the_rungs_that_want_thirty() -> None:
    ladder = (*LADDER, Step(short_side=234, kbps=145, max_fps=30))
    assert command(info(video(rate=60, seconds=6)), ladder=ladder) == whole(
        [
            "[0:0]setpts=PTS-0[s0]",
            "[s0]fps=eof_action=pass:fps=60:round=near[s1]",
            "[s1]tpad=stop=-1:stop_mode=clone[s2]",
            "[s2]trim=end_pts=360:start_pts=0[s3]",
            "[s3]scale=1280:720:flags=bicubic:out_range=limited[s4]",
            "[s4]format=pix_fmts=yuv420p[s5]",
            "[s5]setsar=1[s6]",
            "[s6]split=2[s7][s8]",
            "[s8]framestep=2[s9]",
            "[s9]scale=640:360:flags=bicubic[s10]",
            "[s10]setsar=1[s11]",
            "[s11]split=2[s12][s13]",
            "[s13]scale=416:234:flags=bicubic[s14]",
            "[s14]setsar=1[s15]",
        ],
        [
            rung("s7", "720p", (4500, 6750, 9000), 120, "1/60", 60000),
            rung("s12", "360p", LOW, 60),
            rung("s15", "234p", (145, 218, 290), 60),
        ],
    )


def test_interlaced_pictures_are_woven_apart_before_anything_else() -> None:
    ladder = (Step(short_side=576, kbps=2000),)
    recording = info(video(720, 576, 25, 6, interlaced=True, origin_pts=-900))
    assert command(recording, ladder=ladder) == whole(
        [
            "[0:0]setpts=PTS+900[s0]",
            "[s0]bwdif=deint=all:mode=send_frame[s1]",
            "[s1]fps=eof_action=pass:fps=25:round=near[s2]",
            "[s2]tpad=stop=-1:stop_mode=clone[s3]",
            "[s3]trim=end_pts=150:start_pts=0[s4]",
            "[s4]scale=720:576:flags=bicubic:out_range=limited[s5]",
            "[s5]format=pix_fmts=yuv420p[s6]",
            "[s6]setsar=1[s7]",
        ],
        [rung("s7", "576p", (1536, 2304, 3072), 50, "1/25", 25000)],
    )


@pytest.mark.parametrize(
    ("tags", "primaries", "matrix"),
    [
        ({"color_primaries": "9", "color_space": "9"}, "bt2020", "bt2020nc"),
        ({"color_primaries": "2", "color_space": "2"}, "bt2020", "bt2020nc"),
        ({"color_primaries": "12", "color_space": "1"}, "smpte432", "bt709"),
        ({}, "bt2020", "bt2020nc"),
    ],
)
def test_hdr_is_tone_mapped_once_at_the_largest_size(tags: dict[str, str], primaries: str, matrix: str) -> None:
    facts: dict[str, Any] = {
        "hdr": True,
        "bit_depth": 10,
        "pixel_format": "yuv420p10le",
        "color_transfer": "16",
        **tags,
    }
    recording = info(video(seconds=6, **facts))
    assert command(recording) == whole(
        [
            "[0:0]setpts=PTS-0[s0]",
            "[s0]fps=eof_action=pass:fps=30:round=near[s1]",
            "[s1]tpad=stop=-1:stop_mode=clone[s2]",
            "[s2]trim=end_pts=180:start_pts=0[s3]",
            f"[s3]setparams=color_primaries={primaries}:colorspace={matrix}[s4]",
            "[s4]scale=1280:720:flags=bicubic:out_range=limited[s5]",
            "[s5]zscale=npl=100:transfer=linear[s6]",
            "[s6]format=pix_fmts=gbrpf32le[s7]",
            "[s7]zscale=primaries=bt709[s8]",
            "[s8]tonemap=desat=0:tonemap=hable[s9]",
            "[s9]zscale=matrix=bt709:range=limited:transfer=bt709[s10]",
            "[s10]format=pix_fmts=yuv420p[s11]",
            "[s11]setsar=1[s12]",
            "[s12]split=2[s13][s14]",
            "[s14]scale=640:360:flags=bicubic[s15]",
            "[s15]setsar=1[s16]",
        ],
        [rung("s13", "720p", TOP, 60), rung("s16", "360p", LOW, 60)],
    )


def test_a_rung_that_no_other_can_feed_is_made_from_the_source() -> None:
    """The smaller one has all frames, the larger one every second."""
    ladder = (Step(short_side=720, kbps=3000, max_fps=30), Step(short_side=360, kbps=400, fast_kbps=600))
    graph = command(info(video(rate=60, seconds=6)), ladder=ladder)
    text = graph[graph.index("-filter_complex") + 1]
    assert "[s3]split=2[s4][s5];[s4]framestep=2[s6];[s6]scale=1280:720" in text
    assert "[s5]scale=640:360:flags=bicubic:out_range=limited" in text


@pytest.mark.parametrize(
    ("entry", "time_base", "said"),
    [
        (1, Fraction(1, 3), "0.333334"),  # up: a microsecond early would be a whole GOP early
        (90000 * 3600, Fraction(1, 90000), "3600.000000"),
        (-1, Fraction(1, 3), "-0.333333"),
        (12345, Fraction(1, 1000), "12.345000"),
    ],
)
def test_entries_are_rounded_up_to_the_microsecond(entry: int, time_base: Fraction, said: str) -> None:
    recording = info(video())
    plan = make_plan(recording, MediaSettings(_env_file=None), LADDER)
    job = ChunkJob(
        replay_id="r", part="c", source="a", prefix="p/",
        video=recording.video.model_copy(update={"time_base": time_base}),
        chunk=plan.chunks[1].model_copy(update={"entry_pts": entry}), rungs=plan.rungs, frame_rate=plan.frame_rate,
        gop_frames=plan.gop_frames, segment_frames=plan.segment_frames, preset="veryfast", threads=1,
    )  # fmt: skip
    made = chunk_command("ffmpeg", job, ADDRESS, Path("/out"))
    assert made[made.index("-ss") + 1] == said


def test_an_encoder_nobody_knows() -> None:
    recording = info(video())
    plan = make_plan(recording, MediaSettings(_env_file=None), LADDER)
    job = ChunkJob(
        replay_id="r", part="c", source="a", prefix="p/", video=recording.video, chunk=plan.chunks[0],
        rungs=tuple(each.model_copy(update={"encoder": "h264_magic"}) for each in plan.rungs),
        frame_rate=plan.frame_rate, gop_frames=plan.gop_frames, segment_frames=plan.segment_frames,
        preset="veryfast", threads=1,
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="h264_magic"):
        chunk_command("ffmpeg", job, ADDRESS, Path("/out"))


# --- sound ------------------------------------------------------------------------------------------

INPUT = [
    "-format_whitelist", FORMATS, "-max_error_rate", "1", "-protocol_whitelist", "file", "-threads", "1", "-vn",
    "-i", ADDRESS,
]  # fmt: skip


def audio_job(mode: str = "encode", **track: Any) -> AudioJob:
    return AudioJob(
        replay_id="r", part="audio", source="/recordings/a.mp4", prefix="replays/r/",
        rendition=AudioRendition(name="audio", track_index=1, mode=mode), track=audio(**track),
        origin_seconds=1.5, duration_seconds=Fraction(1001, 100), segment_seconds=Fraction(6),
    )  # fmt: skip


def encoded(filters: Sequence[str]) -> list[str]:
    return [
        "/bin/ffmpeg", *INPUT, "-filter_complex", ";".join(filters), "-map", f"[s{len(filters) - 1}]",
        "-f", "mp4", "-ac", "2", "-ar", "48000", "-avoid_negative_ts", "disabled", "-b:a", "128k", "-c:a", "aac",
        "-fflags", "+bitexact", "-frag_duration", "6000000", "-map_chapters", "-1", "-map_metadata", "-1",
        "-movflags", "empty_moov+default_base_moof+delay_moov", "-write_tmcd", "0",
        "/out/audio.mp4", *QUIET, "-copyts", "-filter_complex_threads", "1",
    ]  # fmt: skip


START = [
    "[0:1]asetpts=PTS-1.500000000/TB[s0]",
    "[s0]aresample=48000:async=1000:first_pts=0:min_hard_comp=0.05[s1]",
    "[s1]aformat=channel_layouts=stereo:sample_fmts=fltp[s2]",
]


def test_sound_is_encoded_from_the_first_picture_on_and_measured_on_the_way() -> None:
    assert encode_command("/bin/ffmpeg", audio_job(), ADDRESS, Path("/out/audio.mp4"), measure=True) == encoded(
        [
            *START,
            "[s2]ebur128=metadata=1[s3]",
            "[s3]ametadata=direct=1:file=-:key=lavfi.r128.I:mode=print[s4]",
            "[s4]apad[s5]",
            "[s5]atrim=end=10.010000000[s6]",
        ]
    )


def test_sound_is_made_louder_behind_a_limiter() -> None:
    assert encode_command("/bin/ffmpeg", audio_job(), ADDRESS, Path("/out/audio.mp4"), gain_db=6.25) == encoded(
        [
            *START,
            "[s2]volume=6.25dB[s3]",
            "[s3]alimiter=latency=1:level=0:limit=0.891[s4]",
            "[s4]apad[s5]",
            "[s5]atrim=end=10.010000000[s6]",
        ]
    )


@pytest.mark.parametrize(
    ("start_seconds", "first", "clock"),
    [
        (1.4, "1.468000", "(N-1)*1024"),  # a packet before the first one heard primes the decoder
        (1.495, "1.489333", "(N-0)*1024"),  # there is none before
    ],
)
def test_sound_is_copied_packet_by_packet(start_seconds: float, first: str, clock: str) -> None:
    job = audio_job("copy", start_seconds=start_seconds)
    assert copy_command("/bin/ffmpeg", job, ADDRESS, Path("/out/audio.mp4")) == [
        "/bin/ffmpeg", "-format_whitelist", FORMATS, "-protocol_whitelist", "file", "-i", ADDRESS, "-map", "0:1",
        "-f", "mp4", "-avoid_negative_ts", "disabled",
        "-bsf:a",
        f"noise=drop='lt(pts*tb,{first})+gt(pts*tb,11.520667)',aac_adtstoasc,setts=time_base=1/48000,"
        f"setts=pts={clock}:dts={clock}:duration=1024",
        "-c:a", "copy", "-fflags", "+bitexact", "-frag_duration", "6000000", "-map_chapters", "-1",
        "-map_metadata", "-1", "-movflags", "empty_moov+default_base_moof+delay_moov", "-write_tmcd", "0",
        "/out/audio.mp4", *QUIET, "-copyts",
    ]  # fmt: skip


@pytest.mark.parametrize(("strict", "errors"), [(False, "1"), (True, "0")])
def test_loudness_is_that_of_the_stereo_mix(strict: bool, errors: str) -> None:
    assert loudness_command("/bin/ffmpeg", ADDRESS, 2, strict=strict) == [
        "/bin/ffmpeg", "-format_whitelist", FORMATS, "-max_error_rate", errors, "-protocol_whitelist", "file",
        "-threads", "1", "-vn", "-i", ADDRESS,
        "-filter_complex",
        "[0:2]aformat=channel_layouts=stereo:sample_fmts=fltp[s0];[s0]ebur128=metadata=1[s1];"
        "[s1]ametadata=direct=1:file=-:key=lavfi.r128.I:mode=print[s2]",
        "-map", "[s2]", "-f", "null", "-", *QUIET,
    ]  # fmt: skip


def test_a_link_may_use_the_network_and_a_file_may_not() -> None:
    link = "https://bucket.example/recording.mp4?signature=x"
    made = loudness_command("ffmpeg", link, 1)
    assert made[made.index("-protocol_whitelist") + 1] == "https,tls,tcp,http"
    assert made[made.index("-format_whitelist") + 1] == FORMATS
