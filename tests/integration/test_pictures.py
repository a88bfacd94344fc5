"""Poster, candidates and storyboard of real recordings: the right pictures, at their exact times."""

from __future__ import annotations

import shutil
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from control.bus.messages import Progress, VideoTrack
from control.bus.work import Work
from control.errors import Cancelled, DeadlineExceeded, OutputRejected
from media_worker.keyframes import Picture, keyframe_pictures
from media_worker.pictures import make_pictures
from media_worker.probe import open_recording, pick_video
from tests.clip_builders import ffmpeg
from tests.clips import CLIPS, make
from tests.frame_numbers import read_frame_number
from tests.made_pictures import Made, Studio, job_of, looked_at


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("pictures"))


def keyframes_of(source: Path) -> list[Fraction]:
    """Seconds of all keyframes from the first picture on, by a plain full decode."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        tick = stream.time_base
        assert tick is not None
        frames = [(frame.pts, frame.key_frame) for frame in container.decode(stream) if frame.pts is not None]
    first = min(pts for pts, _ in frames)
    return [(pts - first) * tick for pts, key in frames if key]


# --- times and tiles ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["eight-seconds", "b-frames-mp4", "b-frames-mkv", "b-frames-flv", "ts-open-gop", "late-start-ts", "late-start-mp4",
     "fps-29.97", "webm-vp9", "hevc", "av1", "mpeg2-ts", "fragmented", "interlaced", "vfr-mp4", "hdr-pq"],
)  # fmt: skip
def test_cues_start_at_the_keyframes_own_times(pictures: Studio, name: str) -> None:
    made = pictures(name)
    keyframes = keyframes_of(made.source)
    assert len(keyframes) >= 2
    starts = [cue.start for cue in made.cues]
    assert starts[0] == 0
    for start in starts:
        assert min(abs(start - keyframe) for keyframe in keyframes) <= Fraction(1, 2000)
    assert made.cues[-1].end == pytest.approx(made.info.duration_seconds, abs=0.001)
    assert all(before.end == after.start for before, after in zip(made.cues, made.cues[1:], strict=False))
    # None that is far enough from the one before is left out.
    wanted, last = [], None
    for keyframe in keyframes:
        if last is None or keyframe - last >= Fraction(9, 5):
            wanted.append(keyframe)
            last = keyframe
    assert len(starts) == len(wanted) == made.result.tiles


@pytest.mark.parametrize(
    "name",
    ["eight-seconds", "b-frames-mp4", "b-frames-mkv", "b-frames-flv", "ts-open-gop", "late-start-ts", "hevc",
     "rotated-90"],
)  # fmt: skip
def test_tiles_show_the_frame_of_their_time(pictures: Studio, name: str) -> None:
    made = pictures(name)
    assert made.numbers == [CLIPS[name].first_number + round(cue.start * 30) for cue in made.cues]
    assert made.numbers[1] > 0


def test_thumbnails_show_the_frame_of_their_time_too(pictures: Studio) -> None:
    for name in ("eight-seconds", "b-frames-mp4", "ts-open-gop"):
        made = pictures(name)
        assert len(made.result.candidates) >= 2
        for candidate in (made.result.poster, *made.result.candidates):
            image = Image.open(made.out / candidate.name)
            assert image.size == (candidate.width, candidate.height) == (320, 180)
            assert read_frame_number(np.asarray(image)) == round(candidate.seconds * 30)


def test_a_long_recording_is_leapt_through_by_its_index(pictures: Studio) -> None:
    """Keyframes twice a second, far apart in bytes: what lies between tiles is passed over, and none is missed."""
    source = pictures.folder / "fat.mp4"
    picture = "testsrc2=size=320x180:rate=30:duration=8,noise=alls=90:allf=t"
    bulky = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "1", "-g", "15", "-bf", "2", "-pix_fmt", "yuv420p")
    ffmpeg("-f", "lavfi", "-i", picture, *bulky, str(source))
    info = looked_at(source)
    with open_recording(str(source), f"file:{source}") as container:
        seeks = 0
        real = container.seek

        class Watched:
            """The container, its seeks counted."""

            def __getattr__(self, name: str) -> Any:
                return getattr(container, name)

            def seek(self, *arguments: Any, **options: Any) -> None:
                nonlocal seeks
                seeks += 1
                real(*arguments, **options)

        stream = pick_video(container, str(source))
        watched: Any = Watched()
        seen = list(keyframe_pictures(watched, stream, info.video, 160, Work("w", 60), apart_seconds=2))
    assert [picture.seconds for picture in seen] == [0, 2, 4, 6]
    assert seeks >= 3


# --- choice ---------------------------------------------------------------------------------------


def test_a_black_intro_gives_no_poster_and_no_candidate(pictures: Studio) -> None:
    made = pictures("black-intro")
    assert made.result.poster.seconds >= 4
    assert all(candidate.seconds >= 4 for candidate in made.result.candidates)
    assert made.poster.mean() > 50
    assert read_frame_number(made.poster) == round((made.result.poster.seconds - 4) * 30)
    assert made.cues[0].tile.max() < 20  # the storyboard shows what there is


def test_a_dissolve_is_not_the_poster(pictures: Studio) -> None:
    made = pictures("dissolve")
    for candidate in made.result.candidates:
        assert not 4 < candidate.seconds < 6
        read_frame_number(np.asarray(Image.open(made.out / candidate.name)))  # unmixed


def test_neither_a_fade_from_black_nor_a_blur_is_the_poster(pictures: Studio) -> None:
    assert pictures("fade-in").result.poster.seconds >= 4
    assert pictures("blurred-start").result.poster.seconds >= 3.5


def test_the_poster_is_the_best_candidate(pictures: Studio) -> None:
    for name in ("black-intro", "eight-seconds"):
        result, out = pictures(name).result, pictures(name).out
        best = max(result.candidates, key=lambda candidate: candidate.score)
        assert (result.poster.seconds, result.poster.score) == (best.seconds, best.score)
        assert (out / "poster.jpg").read_bytes() == (out / best.name).read_bytes()
        assert [candidate.name for candidate in result.candidates] == [
            f"thumbnails/{number:02d}.jpg" for number in range(1, len(result.candidates) + 1)
        ]


def test_an_all_black_recording_still_has_a_poster(pictures: Studio) -> None:
    made = pictures("all-black")
    assert made.poster.shape == (180, 320, 3)
    assert len(made.result.candidates) == 1
    assert made.result.poster.score < 0


def test_one_frame_is_its_own_poster(pictures: Studio) -> None:
    made = pictures("one-frame")
    assert made.result.poster.seconds == 0
    assert read_frame_number(made.poster) == 0
    assert [(cue.start, cue.end) for cue in made.cues] == [(Fraction(0), Fraction(33, 1000))]


def test_a_cover_picture_is_not_the_programme(pictures: Studio) -> None:
    assert pictures("cover").numbers == [0, 60]


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["truncated-ts", "truncated-flv", "truncated-mkv", "truncated-fragmented"])
def test_a_recording_that_breaks_off_has_pictures_of_what_is_left(pictures: Studio, name: str) -> None:
    made = pictures(name)
    assert made.numbers == [60 * number for number in range(made.result.tiles)]
    assert made.result.tiles >= 1
    assert read_frame_number(made.poster) == round(made.result.poster.seconds * 30)
    assert made.cues[-1].end == pytest.approx(made.info.duration_seconds, abs=0.001)


def test_frame_zero_is_the_first_that_decodes(pictures: Studio) -> None:
    made = pictures("headless-ts")
    assert made.numbers[0] == CLIPS["headless-ts"].first_number
    assert made.numbers == [CLIPS["headless-ts"].first_number + round(cue.start * 30) for cue in made.cues]


def test_damaged_keyframes_do_not_stop_the_rest_and_are_no_poster(pictures: Studio, tmp_path: Path) -> None:
    source = tmp_path / "damaged.mp4"
    shutil.copyfile(make("eight-seconds", pictures.folder), source)
    info = looked_at(source)
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.is_keyframe and p.size]
        places = [(packet.pos or 0, packet.size) for packet in packets]
    data = bytearray(source.read_bytes())
    # The first is torn in the middle, of the second nothing is left.
    torn, lost = places[0], places[1]
    data[torn[0] + torn[1] // 2 : torn[0] + torn[1] * 3 // 4] = bytes(torn[1] * 3 // 4 - torn[1] // 2)
    data[lost[0] + 4 : lost[0] + lost[1]] = bytes(lost[1] - 4)
    source.write_bytes(data)
    out = tmp_path / "out"
    result = make_pictures(f"file:{source}", job_of(source, info), out, Work("pictures", 60))
    made = Made(source, out, info, result)
    assert [cue.start for cue in made.cues] == [0, 4, 6]
    assert all(candidate.seconds >= 4 for candidate in result.candidates)
    assert read_frame_number(made.poster) == round(result.poster.seconds * 30)


def test_a_recording_of_which_nothing_decodes_is_refused(pictures: Studio, tmp_path: Path) -> None:
    source = tmp_path / "broken.mp4"
    shutil.copyfile(make("mp4", pictures.folder), source)
    info = looked_at(source)
    with av.open(str(source)) as container:
        places = [(p.pos or 0, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    data = bytearray(source.read_bytes())
    for place, size in places:
        data[place + 4 : place + size] = bytes(size - 4)
    source.write_bytes(data)
    with pytest.raises(OutputRejected, match=r"key-1.*no keyframe"):
        make_pictures(f"file:{source}", job_of(source, info), tmp_path / "out", Work("key-1", 60))


def test_what_lies_before_frame_zero_and_after_the_end_is_left_out(pictures: Studio) -> None:
    source = make("eight-seconds", pictures.folder)
    video: VideoTrack = looked_at(source).video
    second = round(1 / video.time_base)
    part = video.model_copy(update={"origin_pts": video.origin_pts + second, "end_pts": video.origin_pts + 5 * second})
    with open_recording(str(source), f"file:{source}") as container:
        found = list(keyframe_pictures(container, pick_video(container, str(source)), part, 160, Work("pictures", 60)))
    assert [picture.seconds for picture in found] == [1, 3]


# --- the task -------------------------------------------------------------------------------------


def test_progress_grows_to_the_end(pictures: Studio, tmp_path: Path) -> None:
    source = make("eight-seconds", pictures.folder)
    info = looked_at(source)
    told: list[Progress] = []
    work = Work("pictures", 60, reporter=told.append, report_every_seconds=0)
    make_pictures(f"file:{source}", job_of(source, info), tmp_path / "out", work)
    done = [progress.done_frames for progress in told]
    assert done == sorted(done)
    assert done[-1] == told[-1].total_frames == info.video.frames
    assert len(done) >= 4
    assert all(frames < info.video.frames for frames in done[:-1])


def test_cancel_stops_within_a_picture(pictures: Studio, tmp_path: Path) -> None:
    source = make("eight-seconds", pictures.folder)
    info = looked_at(source)
    cancelled = threading.Event()
    told: list[Progress] = []

    def reporter(progress: Progress) -> None:
        told.append(progress)
        cancelled.set()

    work = Work("pictures", 60, cancelled=cancelled, reporter=reporter, report_every_seconds=0)
    started = time.monotonic()
    with pytest.raises(Cancelled):
        make_pictures(f"file:{source}", job_of(source, info), tmp_path / "out", work)
    assert time.monotonic() - started < 10
    assert len(told) == 1
    assert not (tmp_path / "out/poster.jpg").exists()


def test_the_deadline_is_kept(pictures: Studio, tmp_path: Path) -> None:
    source = make("eight-seconds", pictures.folder)
    job = job_of(source, looked_at(source))
    with pytest.raises(DeadlineExceeded):
        make_pictures(f"file:{source}", job, tmp_path / "out", Work("pictures", 0))


def test_pictures_are_streamed_not_collected(pictures: Studio) -> None:
    """Memory is bounded: the decoder is never ahead of who takes the pictures."""
    source = make("eight-seconds", pictures.folder)
    video = looked_at(source).video
    checked = 0

    class Counting(Work):
        def check(self) -> None:
            nonlocal checked
            checked += 1

    with open_recording(str(source), f"file:{source}") as container:
        stream = pick_video(container, str(source))
        taken: list[Picture] = []
        for picture in keyframe_pictures(container, stream, video, 160, Counting("pictures", 60)):
            taken.append(picture)
            assert checked <= 61 * len(taken)
    assert len(taken) == 4
