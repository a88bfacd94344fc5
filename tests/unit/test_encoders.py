"""The tables of encoders and tiers, and whole commands of the tiers of GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.bus.messages import ChunkJob, MediaInfo, Rung
from control.settings import MediaSettings
from media_worker.boxes import BoxError
from media_worker.boxes.obu import starts_with_key_frame
from media_worker.command import chunk_command
from media_worker.encoders.table import ENCODERS, Encoder
from media_worker.encoders.tiers import CUDA, CUDA_UPLOAD, TIERS, VAAPI, VAAPI_UPLOAD, Device, Tier, Way
from pipelines.ladder import Step
from pipelines.plan import make_plan
from tests.unit.facts import info, video

LADDER = (Step(short_side=720, kbps=3000, fast_kbps=4500), Step(short_side=360, kbps=400, max_fps=30))
CARD, NODE = Device("nvenc", "1"), Device("vaapi", "/dev/dri/renderD128")
GRID = (
    "[0:0]setpts=PTS-0[s0];[s0]fps=eof_action=pass:fps=30:round=near[s1];[s1]tpad=stop=-1:stop_mode=clone[s2];"
    "[s2]trim=end_pts=360:start_pts=0[s3];"
)
FIRST_SCALE = "[s3]scale=1280:720:flags=bicubic:out_range=limited[s4];[s4]format=pix_fmts=yuv420p[s5];[s5]setsar=1[s6];"
CUDA_720 = "scale_cuda=format=yuv420p:h=720:interp_algo=bicubic:w=1280"
CUDA_360 = "scale_cuda=format=yuv420p:h=360:interp_algo=bicubic:w=640"


def command(way: Way, *encoders: str, recording: MediaInfo | None = None) -> list[str]:
    recording = recording or info(video(seconds=60))
    plan = make_plan(recording, MediaSettings(_env_file=None), LADDER)
    rungs = tuple(r.model_copy(update={"encoder": name}) for r, name in zip(plan.rungs, encoders, strict=True))
    job = ChunkJob(
        replay_id="r", part="chunk-00000", source="/recordings/a.mp4", prefix="replays/r/", video=recording.video,
        chunk=plan.chunks[0], rungs=rungs, frame_rate=plan.frame_rate, gop_frames=plan.gop_frames,
        segment_frames=plan.segment_frames, preset=plan.preset, threads=plan.threads,
    )  # fmt: skip
    return chunk_command("/bin/ffmpeg", job, "file:/recordings/a.mp4", Path("/out"), way)


def graph(arguments: list[str]) -> str:
    return arguments[arguments.index("-filter_complex") + 1]


def value(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_on_nvenc_pictures_never_leave_the_card() -> None:
    made = command(Way(CUDA, CARD), "h264_nvenc", "h264_nvenc")
    assert graph(made) == (
        GRID
        + f"[s3]{CUDA_720}[s4];[s4]setsar=1[s5];[s5]setparams=range=limited[s6];[s6]split=2[s7][s8];"
        + f"[s8]{CUDA_360}[s9];[s9]setsar=1[s10]"
    )
    assert made[made.index("-extra_hw_frames") : made.index("-max_error_rate")] == [
        "-extra_hw_frames", "8", "-format_whitelist", value(made, "-format_whitelist"), "-hwaccel", "cuda",
        "-hwaccel_device", "gpu", "-hwaccel_output_format", "cuda",
    ]  # fmt: skip
    assert "-noautorotate" in made
    assert made[-4:] == ["-init_hw_device", "cuda=gpu:1", "-filter_hw_device", "gpu"]
    first = made[made.index("-map") : made.index("/out/720p.mp4") + 1]
    assert first == [
        "-map", "[s7]", "-f", "mp4", "-avoid_negative_ts", "disabled", "-b:v", "3000k", "-b_ref_mode", "disabled",
        "-bf", "2", "-bufsize", "6000k", "-c:v", "h264_nvenc", "-enc_time_base", "1/30", "-fflags", "+bitexact",
        "-forced-idr", "1", "-fps_mode", "passthrough", "-g", "60", "-map_chapters", "-1", "-map_metadata", "-1",
        "-maxrate", "4500k",
        "-movflags", "frag_keyframe+empty_moov+default_base_moof+frag_discont+negative_cts_offsets",
        "-no-scenecut", "1", "-preset", "p4", "-profile:v", "high", "-rc", "vbr", "-tune", "hq", "-use_editlist", "0",
        "-video_track_timescale", "30000", "-write_tmcd", "0", "/out/720p.mp4",
    ]  # fmt: skip


def test_decoded_on_the_cpu_pictures_are_uploaded_once() -> None:
    made = command(Way(CUDA_UPLOAD, CARD), "h264_nvenc", "h264_nvenc")
    assert graph(made) == (
        GRID + FIRST_SCALE + f"[s6]hwupload_cuda[s7];[s7]split=2[s8][s9];[s9]{CUDA_360}[s10];[s10]setsar=1[s11]"
    )
    assert "-hwaccel" not in made
    assert "-noautorotate" not in made, "the CPU's filters turn what was filmed on its side"


def test_vaapi() -> None:
    whole = command(Way(VAAPI, NODE), "h264_vaapi", "h264_vaapi")
    assert "[s3]scale_vaapi=format=nv12:h=720:mode=hq:w=1280[s4]" in graph(whole)
    assert whole[-4:] == ["-init_hw_device", "vaapi=gpu:/dev/dri/renderD128", "-filter_hw_device", "gpu"]
    assert (value(whole, "-rc_mode"), value(whole, "-idr_interval"), value(whole, "-bf")) == ("VBR", "0", "0")
    upload = graph(command(Way(VAAPI_UPLOAD, NODE), "h264_vaapi", "h264_vaapi"))
    assert upload.startswith(GRID + FIRST_SCALE + "[s6]format=pix_fmts=nv12[s7];[s7]hwupload=extra_hw_frames=64[s8]")


def test_a_rung_of_the_cpu_beside_those_of_a_card() -> None:
    """Scaled on the card from what is there, and brought down."""
    decoded = graph(command(Way(CUDA, CARD), "h264_nvenc", "libx264"))
    assert decoded.endswith(
        f"[s8]{CUDA_360}[s9];[s9]setsar=1[s10];[s10]hwdownload[s11];[s11]format=pix_fmts=yuv420p[s12]"
    )
    # The other way round: too large for the card, so scaled on the CPU, and the smaller one brought up.
    uploaded = graph(command(Way(CUDA_UPLOAD, CARD), "libx264", "h264_nvenc"))
    assert uploaded == (
        GRID
        + FIRST_SCALE
        + "[s6]split=2[s7][s8];[s8]scale=640:360:flags=bicubic[s9];[s9]setsar=1[s10];[s10]hwupload_cuda[s11]"
    )


@pytest.mark.parametrize("preset", ["ultrafast", "veryfast", "medium", "placebo", "a preset of tomorrow"])
def test_presets_of_x264_mean_something_everywhere(preset: str) -> None:
    rung = make_plan(info(video()), MediaSettings(_env_file=None), LADDER).rungs[0]
    assert ENCODERS["libx264"].options(rung, 60, preset, 1)["preset"] == preset
    assert str(ENCODERS["h264_nvenc"].options(rung, 60, preset, 1)["preset"]) in {f"p{n}" for n in range(1, 8)}
    assert ENCODERS["libsvtav1"].options(rung, 60, preset, 1)["preset"] in range(10)


def test_baseline_has_no_b_pictures_and_a_name_of_its_own_in_vaapi() -> None:
    rung = make_plan(info(video()), MediaSettings(_env_file=None), LADDER).rungs[0]
    baseline = rung.model_copy(update={"profile": "baseline"})
    assert ENCODERS["h264_nvenc"].options(baseline, 60, "fast", 1)["bf"] == 0
    assert ENCODERS["h264_vaapi"].options(baseline, 60, "fast", 1)["profile:v"] == "constrained_baseline"


@pytest.mark.parametrize(
    ("facts", "decodes"),
    [
        ({}, True),
        ({"bit_depth": 10}, True),
        ({"rotation": 90}, False),
        ({"interlaced": True}, False),
        ({"hdr": True}, False),
        ({"color_range": "2"}, False),
    ],
)
@pytest.mark.parametrize("kind", ["nvenc", "vaapi"])
def test_what_only_filters_of_the_cpu_do_is_decoded_there(kind: str, facts: dict[str, object], decodes: bool) -> None:
    track = video().model_copy(update=facts)
    taking: list[Tier] = [tier for tier in TIERS[kind] if tier.takes(track)]  # type: ignore[index]
    assert [tier.decodes for tier in taking] == ([True, False] if decodes else [False])


@pytest.mark.parametrize(
    ("name", "width", "height", "fits"),
    [
        ("h264_nvenc", 132, 234, False),  # portrait 234p
        ("h264_nvenc", 416, 234, True),
        ("h264_nvenc", 3840, 2160, True),
        ("h264_nvenc", 7680, 4320, False),
        ("hevc_nvenc", 7680, 4320, True),
        ("h264_vaapi", 160, 90, False),
        ("libx264", 132, 234, True),
    ],
)
def test_sizes(name: str, width: int, height: int, fits: bool) -> None:
    rung: Rung = make_plan(info(video()), MediaSettings(_env_file=None), LADDER).rungs[0]
    assert ENCODERS[name].fits(rung.model_copy(update={"width": width, "height": height})) is fits


def test_every_codec_has_a_row_of_each_kind() -> None:
    rows: list[Encoder] = list(ENCODERS.values())
    assert {(row.codec, row.kind) for row in rows} == {
        (codec, kind) for codec in ("h264", "hevc", "av1") for kind in ("nvenc", "vaapi", "cpu")
    }
    assert all(name == row.name for name, row in ENCODERS.items())


# --- key frames of AV1 ------------------------------------------------------------------------------------------------


def unit(kind: int, payload: bytes) -> bytes:
    return bytes([kind << 3 | 2, len(payload)]) + payload


SEQUENCE = unit(1, b"\x00\x00\x00")


@pytest.mark.parametrize(
    ("sample", "key"),
    [
        (SEQUENCE + unit(6, b"\x10\x00"), True),  # shown, KEY_FRAME
        (SEQUENCE + unit(3, b"\x10"), True),
        (unit(2, b"") + SEQUENCE + unit(6, b"\x10"), True),  # after a temporal delimiter
        (SEQUENCE + unit(6, b"\x30"), False),  # INTER_FRAME
        (SEQUENCE + unit(6, b"\x50"), False),  # INTRA_ONLY_FRAME: what follows may reach before it
        (SEQUENCE + unit(6, b"\x00"), False),  # not shown
        (SEQUENCE + unit(3, b"\x90"), False),  # show_existing_frame
        (SEQUENCE, False),
        (b"", False),
        (bytes([6 << 3]) + b"\x10", True),  # without a length: to the sample's end
        (bytes([6 << 3 | 6, 0, 1]) + b"\x10", True),  # with an extension header
    ],
)
def test_a_key_frame_is_known_by_its_header(sample: bytes, key: bool) -> None:
    assert starts_with_key_frame(sample) is key


@pytest.mark.parametrize("sample", [bytes([6 << 3 | 2, 9]) + b"\x10", bytes([6 << 3 | 2]), bytes([6 << 3 | 2, 0x80])])
def test_units_that_do_not_fit_are_no_av1(sample: bytes) -> None:
    with pytest.raises(BoxError):
        starts_with_key_frame(sample)
