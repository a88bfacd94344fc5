"""Rungs scored against the recording they were made from, by real ffmpeg: to the frame, or the figures mean nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from control.settings import MediaSettings, Settings, current
from media_worker.boxes import parse_fragments, parse_init
from media_worker.cli import verify as command
from media_worker.ffmpeg import ffmpeg_path
from media_worker.verify import Score, VerifyError, score
from media_worker.verify.score import spread
from tests.hls_clips import FRAME_RATE, SECONDS, Hls, build, cut, encode_video, ffmpeg, plan_of

IDENTICAL = 60.0


@pytest.fixture(scope="module")
def hls(tmp_path_factory: pytest.TempPathFactory) -> Hls:
    return build(tmp_path_factory.mktemp("hls") / "made")


@pytest.fixture(scope="module")
def recording(hls: Hls) -> Path:
    """What the best rung shows, as a recording: a comparison that is off by a frame is not of identical pictures."""
    path = hls.folder.parent / "recording.mp4"
    shutil.copyfile(hls.folder.parent / f"{hls.folder.name}-source" / "180p.mp4", path)
    return path


def settings(**media: Any) -> Settings:
    base = current()
    return base.model_copy(update={"media": MediaSettings(_env_file=None, **media)})


def scored(hls: Hls, source: Path, segments: int = 0, **media: Any) -> dict[str, Score]:
    found = score(str(hls.master), str(source), settings(**media), segments=segments)
    return {each.rendition.split("/")[0]: each for each in found}


def test_a_rung_that_is_the_recording_is_identical_to_it(hls: Hls, recording: Path) -> None:
    found = scored(hls, recording)
    best, small = found["180p"], found["90p"]
    assert (best.width, best.height, best.segments, best.frames) == (320, 180, 3, SECONDS * FRAME_RATE)
    assert (best.psnr_db, best.ssim) == (IDENTICAL, 1.0)
    assert best.vmaf is not None
    assert best.vmaf > 95
    # Half the size, made larger again.
    assert (small.width, small.height, small.frames) == (320, 180, SECONDS * FRAME_RATE)
    assert small.psnr_db < 35
    assert small.ssim < 0.98
    assert small.vmaf is not None
    assert small.vmaf_lowest is not None
    assert small.vmaf_lowest <= small.vmaf < best.vmaf - 20


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("ts", ("-muxdelay", "0.7")),  # begins late, and has no index
        ("mkv", ("-output_ts_offset", "5")),
        ("flv", ()),
    ],
)
def test_frames_are_found_in_any_container(
    hls: Hls, recording: Path, tmp_path: Path, suffix: str, options: Sequence[str]
) -> None:
    other = tmp_path / f"recording.{suffix}"
    ffmpeg("-i", str(recording), "-c", "copy", *options, str(other))
    best = scored(hls, other, segments=1)["180p"]
    assert (best.segments, best.frames, best.psnr_db) == (1, 6 * FRAME_RATE, IDENTICAL)


def test_a_rung_of_every_second_frame(hls: Hls, recording: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    options = ("-vf", "framestep=2", "-c:v", "libx264", "-qp", "0", "-profile:v", "high444")
    cut_options = ("-g", "30", "-keyint_min", "30", "-sc_threshold", "0", "-video_track_timescale", "15000")
    whole = tmp_path / "half.mp4"
    flags = "frag_keyframe+empty_moov+default_base_moof+frag_discont+negative_cts_offsets"
    ffmpeg("-i", str(recording), *options, *cut_options, "-movflags", flags, "-use_editlist", "0", str(whole))
    track = cut(whole, folder / "180p", [3])
    made = Hls(folder, plan_of([("180p", 320, 180, 15)], audio=False), {"180p": track}, {})
    made.write_playlists()
    found = scored(made, recording)["180p"]
    assert (found.frames, found.psnr_db) == (SECONDS * FRAME_RATE // 2, IDENTICAL)


def test_another_recording_scores_low(hls: Hls, recording: Path, tmp_path: Path) -> None:
    late = tmp_path / "late.mp4"
    ffmpeg("-ss", "2", "-i", str(recording), "-c", "copy", str(late))
    assert scored(hls, late, segments=1)["180p"].psnr_db < 35


def test_without_libvmaf_psnr_and_ssim_are_told(hls: Hls, recording: Path, tmp_path: Path) -> None:
    """An ffmpeg that was built without it, as Debian's is: it says so, and does the rest."""
    poor = tmp_path / "ffmpeg"
    real = ffmpeg_path(current().media)
    poor.write_text(
        "#!/bin/sh\n"
        'case "$*" in *libvmaf*) echo "[fatal] No such filter: \'libvmaf\'" >&2; exit 8;; esac\n'
        f'exec "{real}" "$@"\n'
    )
    poor.chmod(0o755)
    best = scored(hls, recording, segments=1, ffmpeg=str(poor))["180p"]
    assert (best.vmaf, best.vmaf_lowest) == (None, None)
    assert (best.psnr_db, best.ssim) == (IDENTICAL, 1.0)


def test_what_cannot_be_scored_is_named(hls: Hls, recording: Path, tmp_path: Path) -> None:
    def refused(master: Path | str, source: Path | None, says: str) -> None:
        with pytest.raises(VerifyError, match=says):
            score(str(master), str(source) if source else None, settings())

    refused(hls.master, tmp_path / "none.mp4", "does not exist")
    refused(hls.master, None, r"does not name a recording: say which recording it was made from \(--source\)")
    refused("http://127.0.0.1:9/master.m3u8", None, "is not on this machine")
    refused(tmp_path / "none.m3u8", recording, "is not there")
    bright = tmp_path / "hdr.mp4"
    encode_video(
        bright, 320, 180, more=("-color_trc", "smpte2084", "-bsf:v", "h264_metadata=transfer_characteristics=16")
    )
    refused(hls.master, bright, "is HDR")
    broken = tmp_path / "broken"
    shutil.copytree(hls.folder, broken)
    segment = broken / "180p/seg-00000.m4s"
    data = bytearray(segment.read_bytes())
    for sample in parse_fragments(bytes(data), parse_init((broken / "180p/init.mp4").read_bytes()))[-1].samples:
        # It still says which kind of picture it is, and nothing that a decoder could use.
        data[sample.offset + 5 : sample.offset + sample.size] = bytes(sample.size - 5)
    segment.write_bytes(data)
    refused(broken / "master.m3u8", recording, r"segment 0 .*: only 120 of 180 frames could be compared")
    for path in (broken / "180p").glob("*.m4s"):
        path.unlink()
    refused(broken / "master.m3u8", recording, "has no segment that can be scored")


def test_the_summary_beside_a_replay_names_its_recording(hls: Hls, recording: Path, tmp_path: Path) -> None:
    folder = tmp_path / "replay"
    shutil.copytree(hls.folder, folder)
    (folder / "replay.json").write_text(json.dumps({"source": {"source": str(recording)}}))
    told = CliRunner().invoke(command, [str(folder / "master.m3u8"), "--score", "--segments", "1", "--json"])
    assert told.exit_code == 0, told.output
    report = json.loads(told.output)
    assert report["ok"]
    assert [(each["rendition"], each["segments"]) for each in report["scores"]] == [
        ("180p/playlist.m3u8", 1),
        ("90p/playlist.m3u8", 1),
    ]
    assert report["scores"][0]["psnr_db"] == IDENTICAL


def test_the_command_shows_scores_and_says_what_is_missing(hls: Hls, recording: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(command, [str(hls.master), "--score", "--segments", "1", "--source", str(recording)])
    assert shown.exit_code == 0, shown.output
    assert "against the recording" in shown.output
    assert "60.00" in shown.output
    missing = runner.invoke(command, [str(hls.master), "--score"])
    assert missing.exit_code == 2
    assert "--source" in missing.output
    lonely = runner.invoke(command, [str(hls.master), "--source", str(recording)])
    assert lonely.exit_code == 2
    assert "--score" in lonely.output


def test_segments_are_taken_evenly() -> None:
    segments: Any = list(range(100))
    few: Any = spread(segments, 4)
    assert few == [12, 37, 62, 87]
    assert spread(segments, 0) == spread(segments, 200) == segments
