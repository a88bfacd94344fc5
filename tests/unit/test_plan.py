"""The grid, the chunks and the audio of a replay."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.bus.messages import Plan
from control.settings import MediaSettings
from pipelines.ladder import Step
from pipelines.plan import make_plan
from tests.unit.facts import audio, info, video

NTSC = Fraction(30000, 1001)


def plan(*args: Any, **settings: Any) -> Plan:
    return make_plan(info(*args), MediaSettings(**settings))


@pytest.mark.parametrize(
    ("rate", "gop", "segment"),
    [
        (30, 60, 180),
        (25, 50, 150),
        (24, 48, 144),
        (Fraction(24000, 1001), 48, 144),
        (NTSC, 60, 180),
        (60, 120, 360),
        (Fraction(60000, 1001), 120, 360),
        (50, 100, 300),
        (15, 30, 90),
        (Fraction(25, 2), 25, 75),
        (1, 2, 6),
    ],
)
def test_gops_of_two_seconds_and_segments_of_six(rate: Fraction | int, gop: int, segment: int) -> None:
    made = plan(video(rate=rate))
    assert (made.gop_frames, made.segment_frames) == (gop, segment)
    assert 5.5 <= made.segment_frames / made.frame_rate <= 6.5


@pytest.mark.parametrize(("rate", "kept"), [(120, 60), (100, 50), (240, 60), (90, 45), (60, 60)])
def test_more_than_60_frames_a_second_are_divided(rate: int, kept: int) -> None:
    assert plan(video(rate=rate)).frame_rate == kept


def test_ntsc_chunks_are_whole_frames() -> None:
    made = plan(video(rate=NTSC, seconds=1800 / NTSC))
    assert made.frames == 1800
    assert sum(chunk.frames for chunk in made.chunks) == 1800


def test_cuts_are_taken_behind_keyframes() -> None:
    # Keyframes every 9 s: cuts at multiples of 18 s cost nothing; 30 s would decode 3 s in vain.
    made = plan(video(seconds=600, keyframe_seconds=9), None or audio(end_seconds=600))
    waste = [chunk.first_frame - round(Fraction(chunk.entry_pts or 0, 90000) * 30) for chunk in made.chunks]
    assert sum(waste) < len(made.chunks) * 90 / 2


def test_a_short_recording_is_cut_fine_enough_for_all_cores() -> None:
    assert [chunk.frames // 180 for chunk in plan(video(seconds=60)).chunks] == [2, 2, 2, 2, 1, 1]
    assert len(plan(video(seconds=3)).chunks) == 1


def test_long_recordings_have_chunks_of_the_length_asked_for() -> None:
    made = plan(video(seconds=7200))
    assert {chunk.frames for chunk in made.chunks[:239]} == {900}
    assert len(plan(video(seconds=7200), chunk_seconds=60).chunks) < 125


def test_the_last_chunks_grow_short_so_that_cores_finish_together() -> None:
    made = plan(video(seconds=7200)).chunks
    assert [chunk.frames // 180 for chunk in made[-4:]] == [5, 3, 1, 1]


def test_without_an_index_the_source_is_entered_a_keyframe_early() -> None:
    indexed, bisected = plan(video()), make_plan(info(container="mpegts"), MediaSettings())
    interlaced = plan(video(interlaced=True))
    for exact, early, woven in zip(indexed.chunks[1:], bisected.chunks[1:], interlaced.chunks[1:], strict=True):
        assert exact.entry_pts is not None
        assert early.entry_pts == woven.entry_pts == exact.entry_pts - 2 * 90000


def test_one_frame() -> None:
    made = plan(video(seconds=Fraction(1, 30)))
    assert (made.frames, len(made.chunks), made.chunks[0].frames) == (1, 1, 1)


def test_time_that_starts_late_changes_nothing_but_the_entries() -> None:
    late, early = plan(video(origin_pts=90000 * 1400)), plan(video())
    assert late.frames == early.frames
    for one, other in zip(late.chunks[1:], early.chunks[1:], strict=True):
        assert (one.entry_pts or 0) - 90000 * 1400 == other.entry_pts


@given(
    rate=st.sampled_from(
        [Fraction(24000, 1001), Fraction(25), NTSC, Fraction(30), Fraction(60000, 1001), Fraction(60)]
    ),
    seconds=st.fractions(min_value=Fraction(1, 10), max_value=2000),
    keyframe_seconds=st.sampled_from([0.5, 1, 2, 3.7, 9, 10, 300]),
    chunk_seconds=st.sampled_from([6, 12, 30, 60, 600]),
    origin=st.integers(0, 2**33),
)
def test_chunks_tile_the_grid_with_whole_segments(
    rate: Fraction, seconds: Fraction, keyframe_seconds: float, chunk_seconds: int, origin: int
) -> None:
    track = video(640, 360, rate, seconds, keyframe_seconds, origin_pts=origin)
    made = make_plan(info(track), MediaSettings(chunk_seconds=chunk_seconds))
    place = segment = 0
    for number, chunk in enumerate(made.chunks):
        assert (chunk.index, chunk.first_frame, chunk.first_segment) == (number, place, segment)
        assert chunk.first_frame % made.segment_frames == 0
        if chunk.entry_pts is not None:
            # What is shown at the chunk's first frame has been decoded when it comes.
            assert round((chunk.entry_pts - origin) * track.time_base * rate) <= chunk.first_frame
        place += chunk.frames
        segment += -(-chunk.frames // made.segment_frames)
    assert place == made.frames
    assert made.gop_frames % max(rung.frame_step for rung in made.rungs) == 0


@pytest.mark.parametrize(
    ("track", "mode"),
    [
        (audio(), "copy"),
        (audio(sample_rate=44100), "copy"),
        (audio(start_seconds=-0.02), "copy"),
        (audio(codec="opus", profile=None), "encode"),
        (audio(profile="HE-AAC"), "encode"),
        (audio(channels=1), "encode"),
        (audio(channels=6), "encode"),
        (audio(sample_rate=32000), "encode"),
        (audio(has_gaps=True), "encode"),
        (audio(start_seconds=1.0), "encode"),
        (audio(end_seconds=59.0), "encode"),
    ],
)
def test_audio_is_copied_only_where_it_is_fit_already(track: Any, mode: str) -> None:
    assert [rendition.mode for rendition in plan(None, track).audio] == [mode]


def test_loudness_on_request_means_encoding() -> None:
    assert plan(None, audio(), normalise_lufs=-16).audio[0].mode == "encode"


def test_each_track_is_a_rendition_and_the_first_the_default() -> None:
    made = plan(None, audio(language="zho"), audio(index=2, language="eng"))
    assert [(a.name, a.track_index, a.language, a.default) for a in made.audio] == [
        ("audio", 1, "zho", True),
        ("audio-2", 2, "eng", False),
    ]


def test_audio_that_sounds_only_outside_the_video_is_left_out() -> None:
    assert plan(None, audio(start_seconds=61.0, end_seconds=70.0)).audio == ()
    assert plan().audio == ()


def test_a_ladder_of_one_s_own_is_taken_as_it_is() -> None:
    own = [Step(short_side=1080, kbps=4000), Step(short_side=360, kbps=400)]
    assert [rung.name for rung in make_plan(info(), MediaSettings(), own).rungs] == ["360p"]
    assert [rung.name for rung in make_plan(info(video(320, 180)), MediaSettings(), own).rungs] == ["180p"]


@pytest.mark.parametrize(("codec", "encoder"), [("h264", "libx264"), ("hevc", "libx265"), ("av1", "libsvtav1")])
def test_rungs_are_of_the_codec_that_is_asked_for(codec: Literal["h264", "hevc", "av1"], encoder: str) -> None:
    settings = MediaSettings(_env_file=None, codec=codec)
    assert {rung.encoder for rung in make_plan(info(video()), settings).rungs} == {encoder}
    # And a node with the same settings may use what makes them, but for where it says itself what it may.
    assert {encoder, f"{codec}_nvenc", f"{codec}_vaapi", "libx264"} <= set(settings.encoders)
    assert MediaSettings(_env_file=None, codec=codec, encoders=["libx264"]).encoders == ["libx264"]
