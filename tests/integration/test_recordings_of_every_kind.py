"""Every kind of recording, whole: examined, planned, each chunk made, sound made; then decoded and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from control.bus.messages import AudioJob, ChunkJob, MediaInfo, Plan, RecordingJob, Track
from control.bus.work import Work
from control.settings import MediaSettings
from control.storage import LocalStore
from media_worker.audio import make_audio
from media_worker.audio_segments import split_audio
from media_worker.chunk import make_chunk
from media_worker.ffmpeg import ffmpeg_path
from media_worker.recording import examine
from media_worker.source import locate
from pipelines.plan import make_plan
from pipelines.playlists import join_tracks, track_seconds
from tests.recordings import CLIPS, make, read_frame_number

PREFIX = "replays/r/"


@dataclass
class Made:
    """A recording's replay, without its playlists."""

    info: MediaInfo
    plan: Plan
    video: list[Track]
    """A rung each, all chunks joined."""
    audio: list[Track]
    folder: Path

    def whole(self, rendition: str) -> Path:
        """Init and segments of a rendition in one file."""
        path = self.folder / f"{rendition}.mp4"
        parts = [self.folder / rendition / "init.mp4", *sorted((self.folder / rendition).glob("*.m4s"))]
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture
def replay(folder: Path, tmp_path: Path) -> Callable[..., Made]:
    def build(name: str, order: int = 1, **changes: object) -> Made:
        source = make(name, folder)
        settings = MediaSettings.model_validate(
            {"recording_roots": [folder], "preset": "ultrafast", "chunk_seconds": 6, "scratch": tmp_path, **changes}
        )
        store = LocalStore(tmp_path / "store", durable=False)
        work = Work(name, 100)
        info = examine(RecordingJob(replay_id="r", source=str(source), prefix=PREFIX), store, settings, work)
        plan = make_plan(info, settings)
        chunks = {}
        for chunk in plan.chunks[::order]:
            job = ChunkJob(
                replay_id="r", part=f"chunk-{chunk.index:05d}", source=info.source, prefix=PREFIX,
                video=info.video.model_copy(update={"keyframes": ()}), chunk=chunk, rungs=plan.rungs,
                frame_rate=plan.frame_rate, gop_frames=plan.gop_frames, segment_frames=plan.segment_frames,
                preset=plan.preset, threads=plan.threads,
            )  # fmt: skip
            chunks[chunk.index] = make_chunk(job, store, settings, work)
        rungs = zip(*(chunks[chunk.index].tracks for chunk in plan.chunks), strict=True)
        audio = [_sound(info, plan, number, settings, store, tmp_path) for number in range(len(plan.audio))]
        return Made(info, plan, [join_tracks(tracks) for tracks in rungs], audio, tmp_path / "store" / PREFIX)

    return build


def _sound(
    info: MediaInfo, plan: Plan, number: int, settings: MediaSettings, store: LocalStore, scratch: Path
) -> Track:
    rendition = plan.audio[number]
    job = AudioJob(
        replay_id="r", part=rendition.name, source=info.source, prefix=PREFIX, rendition=rendition,
        track=next(track for track in info.audio if track.index == rendition.track_index),
        origin_seconds=float(info.video.origin_pts * info.video.time_base),
        duration_seconds=plan.duration_seconds, segment_seconds=plan.segment_frames / plan.frame_rate,
    )  # fmt: skip
    whole = scratch / f"{rendition.name}.mp4"
    make_audio(ffmpeg_path(settings), job, locate(info.source, store), whole, Work(rendition.name, 100))
    out = scratch / "store" / PREFIX / rendition.name
    return split_audio(whole, rendition.name, job.duration_seconds, job.segment_seconds, out)


def decoded(path: Path) -> tuple[list[int], list[Fraction]]:
    """The number in each frame, and its time in seconds."""
    numbers, times = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            numbers.append(read_frame_number(frame.to_ndarray(format="gray")))
            times.append((frame.pts or 0) * (frame.time_base or Fraction(1)))
    return numbers, times


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_is_there_once_in_its_place(name: str, replay: Callable[..., Made]) -> None:
    clip, made = CLIPS[name], replay(name)
    video, plan = made.info.video, made.plan
    assert (video.frame_rate, (video.width, video.height)) == (clip.rate, clip.size)
    assert {field: getattr(video, field) for field in clip.facts} == clip.facts
    assert sorted(note.code for note in made.info.notes) == sorted(clip.notes)
    if clip.frames is not None:
        assert plan.frames == clip.frames
    if clip.frames is None or clip.frames > 1:
        assert len(plan.chunks) > 1 or plan.frames <= plan.segment_frames

    for rung, track in zip(plan.rungs, made.video, strict=True):
        numbers, times = decoded(made.whole(rung.name))
        assert track.frames == len(numbers) == -(-plan.frames // rung.frame_step)
        assert {later - before for before, later in pairwise(times)} <= {1 / rung.frame_rate}
        if clip.numbered and not video.variable_frame_rate:
            shown = clip.numbers or (lambda frame: frame)
            assert numbers == [shown(frame * rung.frame_step) for frame in range(len(numbers))]

    assert len(made.audio) == clip.audio
    for track in made.audio:
        assert abs(track_seconds(track) - plan.duration_seconds) <= 1 / plan.frame_rate
        assert track.codecs == "mp4a.40.2"


def test_variable_rate_keeps_each_frame_s_time(replay: Callable[..., Made], folder: Path) -> None:
    """At each place of the grid stands the last frame whose time is nearest to it, or before."""
    made = replay("rate-variable")
    with av.open(str(make("rate-variable", folder))) as container:
        stream = container.streams.video[0]
        times = sorted(packet.pts * stream.time_base for packet in container.demux(stream) if packet.pts is not None)  # type: ignore[operator]
    slots = [int((time - times[0]) * made.plan.frame_rate + Fraction(1, 2)) for time in times]
    numbers, _ = decoded(made.whole(made.plan.rungs[0].name))
    expected = [max(n for n, slot in enumerate(slots) if slot <= place) for place in range(len(numbers))]
    assert numbers == expected


def test_any_chunk_can_be_made_again_in_any_order_with_the_same_bytes(
    replay: Callable[..., Made], tmp_path: Path
) -> None:
    first = replay("ts-open-gop")
    before = {path.name: path.read_bytes() for path in first.folder.rglob("*.m4s")}
    for path in first.folder.rglob("*"):
        if path.is_file():
            path.unlink()
    again = replay("ts-open-gop", order=-1)
    assert len(again.plan.chunks) > 2
    assert {path.name: path.read_bytes() for path in again.folder.rglob("*.m4s")} == before


@pytest.mark.parametrize(
    ("name", "corner"), [("rotated-90", "right"), ("rotated-180", "bottom"), ("rotated-270", "left")]
)
def test_rotated_recordings_are_turned_upright(name: str, corner: str, replay: Callable[..., Made]) -> None:
    """The band of squares, on top of what the camera stored, lies where the display matrix turns it to."""
    made = replay(name)
    with av.open(str(made.whole(made.plan.rungs[0].name))) as container:
        grey = next(frame for frame in container.decode(video=0)).to_ndarray(format="gray")
    height, width = grey.shape
    assert (width > height) == (corner == "bottom")
    edges = {
        "top": grey[: height // 8], "bottom": grey[-height // 8 :],
        "left": grey[:, : width // 8], "right": grey[:, -width // 8 :],
    }  # fmt: skip
    # Frame 0: all squares are black, so the band is the darkest edge.
    assert min(edges, key=lambda edge: float(edges[edge].mean())) == corner


@pytest.mark.parametrize("name", ["hdr-pq", "hdr-hlg"])
def test_hdr_becomes_sdr_that_can_be_looked_at(name: str, replay: Callable[..., Made]) -> None:
    made = replay(name)
    with av.open(str(made.whole(made.plan.rungs[0].name))) as container:
        frame = next(container.decode(video=0))
        grey = frame.to_ndarray(format="gray")
    assert frame.format.name == "yuv420p"
    assert int(frame.color_trc) == 1  # BT.709: ITU-T H.273, table 3
    assert grey.std() > 20
    assert 25 < grey.mean() < 225


def test_interlaced_pictures_have_no_combs(replay: Callable[..., Made]) -> None:
    """In a comb, lines differ from their neighbours more than from the next but one."""
    made = replay("interlaced")
    combs = []
    with av.open(str(made.whole(made.plan.rungs[0].name))) as container:
        for frame in container.decode(video=0):
            grey = frame.to_ndarray(format="gray").astype(np.float32)[60:]
            near, far = np.abs(grey[1:-1] - grey[:-2]).mean(), np.abs(grey[2:] - grey[:-2]).mean()
            combs.append(near / far)
    assert np.mean(combs) < 1.0
