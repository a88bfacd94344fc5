"""Which rates a recording's content asks for, within Apple's table."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.bus.messages import Complexity, ComplexityPoint, MediaInfo, Plan
from control.settings import MediaSettings
from pipelines.ladder import Step
from pipelines.plan import make_plan
from tests.unit.facts import info, video

CATWALK, TALK, STILL = (6400, 2800), (1000, 250), (60, 12)
SIZES = [(1920, 1080), (1280, 720), (720, 1280), (854, 480), (1138, 640), (640, 360), (416, 234)]


def recording(
    busy: tuple[int, int],
    width: int = 1280,
    height: int = 720,
    rate: int | Fraction = 30,
    *,
    source_kbps: int = 20_000,
    codec: str = "h264",
) -> MediaInfo:
    facts = info(video(width, height, rate, codec=codec))
    large = min(width, height, 720)
    points = [
        ComplexityPoint(short_side=side, mean_kbps=kbps, busy_kbps=kbps)
        for side, kbps in zip((large, large // 2), busy, strict=True)
    ]
    measured = Complexity(crf=19, frame_rate=Fraction(rate), places=6, points=tuple(points))
    size_bytes = round(source_kbps * 125 * facts.duration_seconds)
    return facts.model_copy(update={"complexity": measured, "size_bytes": size_bytes})


def plan(facts: MediaInfo, **settings: object) -> Plan:
    return make_plan(facts, MediaSettings.model_validate(settings))


def rates(made: Plan) -> dict[str, int]:
    return {rung.name: rung.video_kbps for rung in made.rungs}


def test_a_catwalk_gets_all_that_apple_s_table_has() -> None:
    made = plan(recording(CATWALK))
    assert made.rungs == plan(info()).rungs
    assert {choice.why for choice in made.ladder} == {"as Apple's table"}
    assert all(choice.needed_kbps > choice.table_kbps for choice in made.ladder)


def test_a_talking_head_needs_fewer() -> None:
    table = rates(plan(info()))
    made = plan(recording(TALK))
    assert rates(made)["720p"] == 1250
    assert all(kbps < table[name] for name, kbps in rates(made).items() if name != "234p")
    assert rates(made)["234p"] == table["234p"]
    assert [choice.why for choice in made.ladder][:2] == ["its pictures need no more"] * 2


def test_a_still_picture_gets_a_third_of_the_table() -> None:
    made = plan(recording(STILL))
    assert rates(made) == {"720p": 1000, "540p": 667, "432p": 244, "360p": 145}
    *kept, smallest = made.ladder
    assert {choice.why for choice in kept} == {
        "the least it may have: a third of Apple's table, and Apple's smallest rate"
    }
    # A line that takes Apple's smallest rate gets a better picture for it.
    assert (smallest.name, smallest.kbps, smallest.why) == ("234p", None, "left out: 360p takes hardly more")


def test_a_rung_that_costs_about_what_the_next_better_one_costs_is_left_out() -> None:
    # A picture made larger before it was sent: its own size needs hardly more bits than half of it.
    made = plan(recording((1700, 1500)))
    assert [rung.name for rung in made.rungs] == ["720p", "432p", "360p", "234p"]
    assert [(choice.name, choice.kbps, choice.why) for choice in made.ladder if choice.kbps is None] == [
        ("540p", None, "left out: 720p takes hardly more")
    ]


def test_no_more_than_shows_what_the_recording_has() -> None:
    starved = plan(recording(CATWALK, source_kbps=800))
    assert rates(starved)["720p"] == 1600
    assert starved.ladder[0].why == "the recording itself has no more to show"
    # A better codec holds more in as many bits.
    assert rates(plan(recording(CATWALK, source_kbps=800, codec="hevc")))["720p"] == 2400
    assert rates(plan(recording(CATWALK, source_kbps=8000))) == rates(plan(info()))


def test_half_the_frames_are_taken_into_account() -> None:
    table = rates(plan(info(video(1280, 720, 60))))
    made = plan(recording((3000, 700), rate=60))
    small = next(choice for choice in made.ladder if choice.name == "360p")
    assert small.needed_kbps == pytest.approx(700 * 1.25 * 0.5**0.3, abs=1)
    assert rates(made)["720p"] == 3750 < table["720p"]


def test_the_same_facts_give_the_same_plan_on_the_wire_too() -> None:
    facts = recording(TALK)
    again = MediaInfo.model_validate_json(facts.model_dump_json())
    assert plan(again) == plan(facts)
    assert Plan.model_validate_json(plan(facts).model_dump_json()) == plan(facts)


def test_plans_of_before_are_still_read() -> None:
    stored = plan(info()).model_dump(mode="json")
    del stored["ladder"]
    assert Plan.model_validate(stored) == plan(info())


def test_it_can_be_turned_off() -> None:
    made = plan(recording(TALK), content_aware=False)
    assert (made.rungs, made.ladder) == (plan(info()).rungs, ())


def test_a_ladder_of_one_s_own_is_left_as_it_is() -> None:
    own = [Step(short_side=720, kbps=2900), Step(short_side=540, kbps=2800), Step(short_side=360, kbps=2700)]
    made = make_plan(recording(STILL), MediaSettings(), own)
    assert rates(made) == {"720p": 2900, "540p": 2800, "360p": 2700}
    assert made.ladder == ()


@given(
    size=st.sampled_from(SIZES),
    rate=st.sampled_from([15, 24, 25, 30, 50, 60]),
    large=st.integers(1, 200_000),
    small=st.integers(1, 200_000),
    source_kbps=st.integers(1, 100_000),
)
def test_whatever_is_measured_apple_s_limits_hold(
    size: tuple[int, int], rate: int, large: int, small: int, source_kbps: int
) -> None:
    facts = recording((large, small), *size, rate, source_kbps=source_kbps)
    table = plan(facts, content_aware=False).rungs
    made = plan(facts)
    known = {rung.name: rung for rung in table}
    assert made.rungs[0].name == table[0].name
    if made.rungs[-1].name != table[-1].name:
        assert made.rungs[-1].video_kbps <= table[-1].video_kbps
    assert [choice.name for choice in made.ladder] == [rung.name for rung in table]
    assert {choice.name: choice.kbps for choice in made.ladder if choice.kbps} == rates(made)
    for rung in made.rungs:
        ceiling = known[rung.name]
        least = max(math.ceil(Fraction(ceiling.video_kbps, 3)), min(ceiling.video_kbps, 145))
        assert least <= rung.video_kbps <= ceiling.video_kbps
        assert rung.video_kbps < rung.max_kbps < 2 * rung.video_kbps
        changed = {"video_kbps", "max_kbps", "buffer_kbits"}
        assert rung.model_dump(exclude=changed) == ceiling.model_dump(exclude=changed)
    for above, below in zip(made.rungs, made.rungs[1:-1], strict=False):
        assert above.video_kbps >= below.video_kbps * 1.35


@pytest.mark.parametrize("rate", [15, 25, 30, 50, Fraction(75, 2), Fraction(125, 2), 60, 90])
@pytest.mark.parametrize("busy", [CATWALK, TALK, STILL])
def test_sound_and_segments_do_not_depend_on_it(rate: int | Fraction, busy: tuple[int, int]) -> None:
    """Sound is cut to the segments before the content is known; at odd rates too, where some rungs need even GOPs."""
    facts = recording(busy, rate=rate)
    early, made = plan(facts.model_copy(update={"complexity": None})), plan(facts)
    for fact in ("frame_rate", "frames", "gop_frames", "segment_frames", "chunks", "audio"):
        assert getattr(early, fact) == getattr(made, fact), fact
