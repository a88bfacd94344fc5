"""What pictures need, measured on real recordings by real encodes: the same each time, and never in a replay's way."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import pytest
from pydantic import BaseModel

from control.bus.messages import Complexity, MediaInfo
from control.bus.names import PROBED
from control.bus.work import Work
from control.errors import Cancelled, DeadlineExceeded
from control.settings import MediaSettings
from media_worker import complexity as measuring
from media_worker.complexity import FRAMES_A_PLACE, choose_places, measure_complexity
from media_worker.probe import probe
from pipelines.plan import make_plan
from tests.clip_builders import ffmpeg
from tests.production import look_at, media_settings
from tests.unit.facts import video

# Everything that ffmpeg would choose at random is told.
WALL = "gradients=rate=30:duration={s}:speed=0.00001:c0=0xE8D8C8:c1=0x604838:x0=0:y0=0:x1=640:y1=360:nb_colors=2"
ROOM = f"{WALL}:size=640x360,format=yuv420p,noise=alls=3:all_seed=1,gblur"
# A head that sways in front of a still room; and a pattern that rushes by, under noise.
TALK = f"{ROOM},split[a][b];[b]crop=160:200,hue=h=60[c];[a][c]overlay=x='240+8*sin(t*2)':y='80+4*sin(t*3)'"
CATWALK = (
    f"{WALL}:size=960x540,format=yuv420p,noise=alls=40:all_seed=1,"
    "crop=640:360:x='160+150*sin(t*2)':y='90+80*cos(t*3)',noise=alls=12:allf=t:all_seed=2"
)
SECONDS = 12


def make(path: Path, picture: str) -> None:
    encode = ("-c:v", "libx264", "-preset", "ultrafast", "-b:v", "3M", "-g", "60", "-pix_fmt", "yuv420p")
    ffmpeg("-f", "lavfi", "-i", picture.format(s=SECONDS), *encode, str(path))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    make(folder / "talk.mp4", TALK)
    make(folder / "catwalk.mp4", CATWALK)
    return folder


@pytest.fixture
def settings(tmp_path: Path, recordings: Path) -> MediaSettings:
    return media_settings(tmp_path, recordings)


def facts(path: Path, settings: MediaSettings) -> MediaInfo:
    return probe(str(path), f"file:{path}", settings, Work("probe", 60)).info


def measured(path: Path, settings: MediaSettings, **changes: object) -> Complexity | None:
    video = facts(path, settings).video.model_copy(update=changes)
    return measure_complexity(f"file:{path}", video, settings, Work("measure", 60))


def test_a_catwalk_needs_many_times_the_bits_of_a_talking_head(
    recordings: Path, settings: MediaSettings, tmp_path: Path
) -> None:
    talk, catwalk = (look_at(recordings / name, tmp_path, settings) for name in ("talk.mp4", "catwalk.mp4"))
    assert talk.complexity
    assert catwalk.complexity
    for quiet, busy in zip(talk.complexity.points, catwalk.complexity.points, strict=True):
        assert quiet.short_side == busy.short_side
        assert busy.mean_kbps > 8 * quiet.mean_kbps
        assert quiet.busy_kbps >= quiet.mean_kbps > 0
    assert [point.short_side for point in talk.complexity.points] == [360, 180]
    kept = make_plan(catwalk, settings)
    spared = make_plan(talk, settings)
    assert [(rung.name, rung.video_kbps) for rung in kept.rungs] == [("360p", 365), ("234p", 145)]
    assert spared.rungs[0].video_kbps < 330
    # Nothing is left of it.
    assert settings.scratch
    assert list(settings.scratch.iterdir()) == []


def test_measured_again_it_is_the_same(recordings: Path, settings: MediaSettings, tmp_path: Path) -> None:
    first = look_at(recordings / "talk.mp4", tmp_path, settings)
    again = look_at(recordings / "talk.mp4", tmp_path, settings)
    assert first == again
    assert make_plan(first, settings) == make_plan(again, settings)


def test_what_constant_quality_takes_of_the_whole_is_foretold(recordings: Path, settings: MediaSettings) -> None:
    """Against the whole recording encoded at the same quality with the ladder's GOPs."""
    for name in ("talk.mp4", "catwalk.mp4"):
        whole = settings.scratch / "whole.mp4" if settings.scratch else Path()
        whole.parent.mkdir(exist_ok=True)
        options = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "19", "-g", "60", "-sc_threshold", "0")
        ffmpeg("-i", str(recordings / name), *options, str(whole))
        found = measured(recordings / name, settings)
        assert found
        true_kbps = whole.stat().st_size * 8 / 1000 / SECONDS
        assert 0.5 < found.points[0].mean_kbps / true_kbps < 1.5


@pytest.mark.parametrize("container", ["mkv", "ts", "flv"])
def test_in_other_containers_the_same_pictures_need_about_the_same(
    recordings: Path, settings: MediaSettings, tmp_path: Path, container: str
) -> None:
    other = tmp_path / f"talk.{container}"
    ffmpeg("-i", str(recordings / "talk.mp4"), "-c", "copy", str(other))
    here, there = measured(recordings / "talk.mp4", settings), measured(other, settings)
    assert here
    assert there
    assert there.points[0].mean_kbps == pytest.approx(here.points[0].mean_kbps, rel=0.3)


def test_portrait_and_interlaced(recordings: Path, settings: MediaSettings, tmp_path: Path) -> None:
    turned = tmp_path / "turned.mp4"
    encode = ("-c:v", "libx264", "-preset", "ultrafast", "-flags", "+ildct+ilme", "-vf", "transpose")
    ffmpeg("-i", str(recordings / "talk.mp4"), *encode, str(turned))
    found = measured(turned, settings, interlaced=True)
    assert found
    assert [point.short_side for point in found.points] == [360, 180]


def test_what_cannot_be_told_stops_nothing(
    recordings: Path, settings: MediaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = recordings / "talk.mp4"
    assert measured(talk, settings, hdr=True) is None
    assert measured(talk, settings, width=400, height=200) is None
    assert measured(talk, settings, end_pts=9 * 15360) is None  # too short to save anything
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(talk.read_bytes()[:4000])
    video = facts(talk, settings).video
    assert measure_complexity(f"file:{torn}", video, settings, Work("measure", 60)) is None
    monkeypatch.setattr(measuring, "_LIMIT_SECONDS", 0.01)
    assert measured(talk, settings) is None


def test_cancel_and_the_task_s_own_end_are_heard(recordings: Path, settings: MediaSettings) -> None:
    talk = recordings / "talk.mp4"
    video = facts(talk, settings).video
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        measure_complexity(f"file:{talk}", video, settings, Work("measure", 60, cancelled=stop))
    with pytest.raises(DeadlineExceeded):
        measure_complexity(f"file:{talk}", video, settings, Work("measure", 0.05))


def test_what_the_recording_is_is_told_before_it_is_measured(
    recordings: Path, settings: MediaSettings, tmp_path: Path
) -> None:
    told: list[tuple[str, BaseModel]] = []
    work = Work("recording", 60, teller=lambda name, result: told.append((name, result)))
    info = look_at(recordings / "talk.mp4", tmp_path, settings, work)
    assert told == [(PROBED, info.model_copy(update={"complexity": None}))]
    assert info.complexity
    told.clear()
    look_at(recordings / "talk.mp4", tmp_path, settings.model_copy(update={"content_aware": False}), work)
    assert told == []  # the answer itself is as early


def test_nothing_is_measured_where_it_is_not_asked_for(
    recordings: Path, settings: MediaSettings, tmp_path: Path
) -> None:
    ladder = tmp_path / "ladder.toml"
    ladder.write_text("[[rung]]\nshort_side = 360\nkbps = 400\n")
    for changes in ({"content_aware": False}, {"ladder": ladder}):
        info = look_at(recordings / "talk.mp4", tmp_path, settings.model_copy(update=changes))
        assert info.complexity is None
    own = make_plan(info, settings.model_copy(update={"ladder": ladder}))
    assert [rung.video_kbps for rung in own.rungs] == [400]


def test_places_are_spread_over_the_whole() -> None:
    places = choose_places(video(seconds=7200, keyframe_seconds=7), 7200)
    assert len(places) == 12
    times = [Fraction(place.entry_pts, 90000) + Fraction(place.skip, 30) for place in places]
    # 300 s, 900 s and so on; where the keyframe lies further before, a second behind it.
    assert [300 + 600 * number - time for number, time in enumerate(times)] == [5, 3, 1, 0, 4, 2, 0, 5, 3, 1, 0, 4]
    sparse = choose_places(video(seconds=12, keyframe_seconds=100), 12)
    assert [(place.entry_pts, place.skip) for place in sparse] == [(0, 30), (0, 60), (0, 90), (0, 120)]
    assert FRAMES_A_PLACE * len(places) < 100  # a few seconds of work, however long the recording is
