"""Payloads on the wire: what comes out of the JSON of one tier is what the other put in."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from control.bus.messages import (
    AudioResult,
    Chunk,
    ChunkJob,
    ChunkResult,
    IFrame,
    Message,
    Problem,
    Progress,
    RecordingJob,
    Segment,
    Thumbnail,
    ThumbnailResult,
    Track,
)
from control.bus.names import CATALOGUE
from control.errors import AfterliveError, OutputRejected
from control.ledger.models import Part, Replay
from control.settings import MediaSettings
from pipelines.jobs import job_of
from pipelines.plan import make_plan
from tests.unit import facts

# Frame rates and time bases that no float holds.
NTSC = Fraction(30000, 1001)


def wire(message: Message) -> Any:
    """As Celery's JSON serializer hands it over."""
    return json.loads(json.dumps(message.model_dump(mode="json")))


def replay() -> Replay:
    info = facts.info(facts.video(rate=NTSC, seconds=90), facts.audio(language="zho"), facts.audio(index=2))
    plan = make_plan(info, MediaSettings(_env_file=None))
    return Replay(
        id="rep_1",
        run=3,
        source="recording.mp4",
        prefix="replays/rep_1/",
        info=info.model_dump(mode="json"),
        plan=plan.model_dump(mode="json"),
    )


@pytest.mark.parametrize(
    ("kind", "number", "name"),
    [
        ("recording", 0, "media.process_stream_recording"),
        ("chunk", 2, "media.transcode_chunk"),
        ("audio", 1, "media.encode_audio"),
        ("pictures", 0, "media.generate_stream_thumbnail"),
    ],
)
def test_each_kind_of_part_has_a_task_and_a_payload_that_survives(kind: str, number: int, name: str) -> None:
    from media_worker import tasks

    whole = replay()
    spec, payload = job_of(whole, Part(replay_id="rep_1", name=f"{kind}-x", kind=kind, number=number))
    assert (spec.name, spec) == (name, CATALOGUE[name])
    body = getattr(tasks, name.partition(".")[2]).body
    model = get_type_hints(body)["job"]
    job = model.model_validate(json.loads(json.dumps(payload))["job"])
    assert {"job": job.model_dump(mode="json")} == payload
    assert (job.replay_id, job.run, job.part, job.prefix) == ("rep_1", 3, f"{kind}-x", "replays/rep_1/")
    if isinstance(job, ChunkJob):
        assert job.frame_rate == NTSC  # exactly
        assert job.chunk.index == 2
        assert job.video.keyframes == ()


def test_no_task_makes_a_part_of_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="subtitles"):
        job_of(replay(), Part(replay_id="rep_1", name="x", kind="subtitles", number=0))


def test_facts_and_plan_survive() -> None:
    info = facts.info(facts.video(rate=NTSC, sample_aspect=Fraction(32, 27)), facts.audio())
    plan = make_plan(info, MediaSettings(_env_file=None))
    assert type(info).model_validate(wire(info)) == info
    assert type(plan).model_validate(wire(plan)) == plan


TRACK = Track(
    name="720p",
    codecs="avc1.64001f",
    timescale=30000,
    init_sha256="0" * 64,
    frames=180,
    segments=(
        Segment(name="seg-00000.m4s", size_bytes=9, ticks=180180, iframes=(IFrame(offset=1, size_bytes=2, ticks=3),)),
    ),
)
PICTURE = Thumbnail(name="poster.jpg", seconds=1.5, score=0.25, width=1280, height=720)


@pytest.mark.parametrize(
    "message",
    [
        ChunkResult(index=1, tracks=(TRACK,), encoder="libx264", seconds=1.25),
        AudioResult(track=TRACK, mode="copy", seconds=0.5, loudness_lufs=-23.1, reused=True),
        ThumbnailResult(
            poster=PICTURE, candidates=(PICTURE,), storyboard="storyboard.vtt", sheets=("a.jpg",), tiles=7, seconds=1
        ),
        Progress(done_frames=1, total_frames=2, fps=29.97),
        Problem.of(OutputRejected(key="k", reason="r")),
        RecordingJob(replay_id="rep_1", source="ä 錄影.mp4", prefix="p/"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_answers_survive(message: Message) -> None:
    assert type(message).model_validate(wire(message)) == message


@given(st.fractions(min_value=Fraction(1, 1000), max_value=1000), st.integers(0, 10**12), st.none() | st.integers())
def test_no_rate_and_no_time_is_rounded(rate: Fraction, frame: int, pts: int | None) -> None:
    chunk = Chunk(index=0, first_frame=frame, frames=1, first_segment=0, entry_pts=pts)
    assert Chunk.model_validate(wire(chunk)) == chunk
    track = facts.video(frame_rate=rate)
    assert type(track).model_validate(wire(track)).frame_rate == rate


def test_a_message_is_what_was_declared_and_stays_it() -> None:
    progress = Progress(done_frames=1, total_frames=2, fps=1)
    with pytest.raises(ValidationError, match="frozen"):
        progress.done_frames = 2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="surprise"):
        Progress.model_validate({"done_frames": 1, "total_frames": 2, "fps": 1, "surprise": 1})


def test_a_problem_tells_no_internals() -> None:
    known = Problem.of(OutputRejected(key="rep_1/chunk-00001", reason="3 frames are missing"))
    assert known.code == "output-rejected"
    assert known.detail == "The output of rep_1/chunk-00001 failed its check: 3 frames are missing."
    unknown = Problem.of(KeyError("/etc/passwd"))
    assert unknown.code == AfterliveError.code
    assert "passwd" not in unknown.detail
    assert "KeyError" in unknown.detail
