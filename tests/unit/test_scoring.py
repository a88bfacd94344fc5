"""What is asked of ffmpeg to compare a segment with its recording, and how its answer is read."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from media_worker.command import QUIET
from media_worker.source import FORMATS
from media_worker.verify.scoring import Compared, Stretch, compared_size, mean, psnr_db, read_scores, score_command
from tests.unit.facts import video

FOLDER = Path("/scratch")


def sized(source: str, number: int) -> list[str]:
    """Both pictures: numbered, and brought to one size and format."""
    steps = ("settb=1/1000", "setpts=N*20", "scale=1280:720:flags=bicubic:out_range=limited", "format=pix_fmts=yuv420p")
    names = [source, *(f"s{number + step}" for step in range(5))]
    return [f"[{names[at]}]{step}[{names[at + 1]}]" for at, step in enumerate((*steps, "setsar=1"))]


def command(stretch: Stretch, vmaf_threads: int = 2, **facts: object) -> list[str]:
    track = video(seconds=60, origin_pts=900, **facts)  # type: ignore[arg-type]
    return score_command(
        "ffmpeg", "file:live.mp4", track, FOLDER / "segment", stretch, FOLDER, vmaf_threads=vmaf_threads
    )


def test_the_whole_command() -> None:
    made = command(Stretch(600, 180, Fraction(30)))
    filters = made.pop(made.index("-filter_complex") + 1)
    assert made == [
        "ffmpeg",
        *("-protocol_whitelist", "file", "-i", "/scratch/segment"),
        *("-format_whitelist", FORMATS, "-max_error_rate", "1", "-noaccurate_seek", "-protocol_whitelist", "file"),
        # What is shown at 20 s is entered two keyframes early: 16 s, and the 10 ms the recording begins late.
        *("-reinit_filter", "0", "-seek_timestamp", "1", "-ss", "16.010000", "-i", "file:live.mp4"),
        *("-filter_complex", "-map", "[s19]", "-f", "null", "-fps_mode", "passthrough", "-"),
        *QUIET,
        "-copyts",
    ]
    assert filters.split(";") == [
        *sized("0:v:0", 0),
        "[1:0]setpts=PTS-900[s5]",
        "[s5]fps=eof_action=pass:fps=30:round=near[s6]",
        "[s6]tpad=stop=-1:stop_mode=clone[s7]",
        "[s7]trim=end_pts=780:start_pts=600[s8]",
        *sized("s8", 9),
        "[s13]split=3[s14][s15][s16]",
        "[s4][s14]psnr=shortest=1:stats_file=/scratch/psnr[s17]",
        "[s17][s15]ssim=shortest=1:stats_file=/scratch/ssim[s18]",
        "[s18][s16]libvmaf=log_fmt=json:log_path=/scratch/vmaf:n_threads=2:shortest=1[s19]",
    ]


def test_the_start_is_read_from_the_start_and_vmaf_is_left_out_where_there_is_none() -> None:
    made = command(Stretch(0, 180, Fraction(30)), vmaf_threads=0, interlaced=True)
    assert "-ss" not in made
    filters = made[made.index("-filter_complex") + 1]
    assert "libvmaf" not in filters
    assert "split=2" in filters
    assert "bwdif" in filters


@pytest.mark.parametrize(
    ("size", "compared"),
    [((1280, 720), (1280, 720)), ((3840, 2160), (1920, 1080)), ((1440, 2560), (1080, 1920)), ((641, 361), (640, 360))],
)
def test_pictures_are_compared_at_the_recording_s_size_up_to_1080_lines(
    size: tuple[int, int], compared: tuple[int, int]
) -> None:
    assert compared_size(video(*size)) == compared


def test_what_ffmpeg_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "psnr").write_text(
        "n:1 mse_avg:9.00 mse_y:2.00 mse_u:1.00 psnr_avg:38.59 psnr_y:45.12\n"
        "n:2 mse_avg:9.00 mse_y:4.00 mse_u:1.00 psnr_avg:38.59 psnr_y:42.11\n"
    )
    (tmp_path / "ssim").write_text("n:1 Y:0.9 U:0.8 V:0.8 All:0.85 (8.2)\nn:2 Y:0.7 U:0.8 V:0.8 All:0.75 (6.0)\n")
    assert read_scores(tmp_path, vmaf=False) == Compared(2, 3.0, 0.8, None)
    (tmp_path / "vmaf").write_text(json.dumps({"pooled_metrics": {"vmaf": {"mean": 91.5, "min": 80}}}))
    assert read_scores(tmp_path, vmaf=True).vmaf == 91.5
    (tmp_path / "ssim").write_text("n:1 Y:0.9 U:0.8 V:0.8 All:0.85 (8.2)\n")
    with pytest.raises(ValueError, match="of 2 frames PSNR is known, of 1 SSIM"):
        read_scores(tmp_path, vmaf=False)


def test_means_are_over_frames_and_psnr_is_of_the_mean_error() -> None:
    long, short = Compared(300, 1.0, 0.9, 90.0), Compared(100, 5.0, 0.5, 50.0)
    assert mean([90.0, 50.0], [long, short]) == 80.0
    assert psnr_db([long, short]) == pytest.approx(45.12, abs=0.01)  # 10 log10(255² / 2)
    assert psnr_db([Compared(1, 0.0, 1.0, None)]) == 60.0
