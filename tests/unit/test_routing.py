"""Which queue a chunk goes to, which queues a worker takes from, and which encoder a rung is pinned to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.bus import names
from control.bus.messages import NodeReport, Plan, Rung
from control.bus.routing import family_of, has_family, queue_of, queues_of
from control.ledger.models import Part
from control.settings import MediaSettings
from pipelines.jobs import rungs_of
from pipelines.pinning import can, codec_of, pin, repin
from pipelines.plan import make_plan
from tests.nodes import CPU, capability, node
from tests.unit import facts

NVENC, VAAPI = capability("h264_nvenc"), capability("h264_vaapi")


def plan(width: int = 1920, height: int = 1080) -> Plan:
    return make_plan(facts.info(facts.video(width, height)), MediaSettings(_env_file=None))


def with_hevc(of: Plan) -> Plan:
    """Its two best rungs in HEVC."""
    best = tuple(rung.model_copy(update={"encoder": "libx265"}) for rung in of.rungs[:2])
    return of.model_copy(update={"rungs": best + of.rungs[2:]})


def encoders(of: Plan) -> list[str]:
    return [rung.encoder for rung in of.rungs]


# --- queues -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pinned", "queue"),
    [
        (["libx264", "libx264"], "low_priority"),
        (["h264_nvenc", "h264_nvenc"], "low_priority.nvenc"),
        (["h264_nvenc", "libx264"], "low_priority.nvenc"),
        (["libx264", "hevc_vaapi"], "low_priority.vaapi"),
        (["libsvtav1"], "low_priority"),
        (["h264_of_tomorrow"], "low_priority"),
        ([], "low_priority"),
    ],
)
def test_a_chunk_goes_where_its_encoders_are(pinned: list[str], queue: str) -> None:
    payload = {"job": {"rungs": [{"encoder": encoder} for encoder in pinned]}}
    assert queue_of(names.TRANSCODE_CHUNK, payload) == queue
    assert queue_of(names.ENCODE_AUDIO, payload) == "low_priority"
    assert queue_of(names.PART_DONE, payload) == "default"


@settings(deadline=None, max_examples=30)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_what_is_no_job_goes_where_somebody_says_so(job: Any) -> None:
    for payload in ({"job": job}, {"job": {"rungs": job}}, {"job": {"rungs": [{"encoder": job}]}}):
        assert queue_of(names.TRANSCODE_CHUNK, payload) in names.TRANSCODE_CHUNK.queues


def test_a_worker_takes_what_it_can() -> None:
    assert queues_of(None) == ("low_priority",)
    assert queues_of(node("a", CPU)) == ("low_priority",)
    assert queues_of(node("a", NVENC, CPU)) == ("low_priority", "low_priority.nvenc")
    assert queues_of(node("a", NVENC, VAAPI)) == ("low_priority", "low_priority.nvenc", "low_priority.vaapi")
    dead = NVENC.model_copy(update={"usable": False, "reason": "no driver"})
    assert queues_of(node("a", dead, CPU)) == ("low_priority",)
    assert not has_family(node("a", dead), "nvenc")


def test_families_are_told_by_the_encoder_s_name() -> None:
    named = ["h264_nvenc", "av1_vaapi", "libx264", "libx265"]
    assert [family_of(encoder) for encoder in named] == ["nvenc", "vaapi", "cpu", "cpu"]
    assert [codec_of(encoder) for encoder in (*named, "hevc_nvenc")] == ["h264", "av1", "h264", "hevc", "hevc"]
    with pytest.raises(ValueError, match="h263"):
        codec_of("h263_nvenc")


# --- pinning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [[], [node("a", CPU)], [node("a", NVENC.model_copy(update={"usable": False}), CPU)]])
def test_without_gpus_a_plan_stays_as_it_is(nodes: Sequence[NodeReport]) -> None:
    assert pin(plan(), 8, nodes) == plan()


def test_all_rungs_go_to_the_gpu_that_can() -> None:
    assert set(encoders(pin(plan(), 8, [node("a", NVENC, CPU), node("b", CPU)]))) == {"h264_nvenc"}
    assert set(encoders(pin(plan(), 8, [node("a", VAAPI, CPU)]))) == {"h264_vaapi"}
    assert set(encoders(pin(plan(), 8, [node("a", VAAPI), node("b", NVENC)]))) == {"h264_nvenc"}


def test_ten_bits_go_where_they_can_be_done() -> None:
    eight = node("a", NVENC)
    ten = node("b", capability("h264_vaapi", bit_depths=(8, 10)))
    assert set(encoders(pin(plan(), 8, [eight, ten]))) == {"h264_nvenc"}
    assert set(encoders(pin(plan(), 10, [eight, ten]))) == {"h264_vaapi"}
    assert set(encoders(pin(plan(), 10, [eight]))) == {"libx264"}


def test_a_size_a_card_cannot_do_is_left_to_the_processor() -> None:
    small = node("a", capability("h264_nvenc", max_width=1280, max_height=1280), CPU)
    assert encoders(pin(plan(), 8, [small])) == ["libx264"] + ["h264_nvenc"] * (len(plan().rungs) - 1)
    narrow = node("a", capability("h264_nvenc", min_width=500), CPU)
    pinned = pin(plan(), 8, [narrow])
    assert {rung.name for rung in pinned.rungs if rung.encoder == "libx264"} == {"234p"}


def test_what_not_every_taker_can_do_is_left_to_the_processor() -> None:
    """Any node of the family may get the chunk."""
    weak = node("weak", capability("h264_nvenc", max_width=1280), CPU)
    assert encoders(pin(plan(), 8, [weak, node("strong", NVENC, CPU)]))[0] == "libx264"
    # And the family that does all of it is better than the one that does a part.
    assert set(encoders(pin(plan(), 8, [weak, node("strong", NVENC, CPU), node("c", VAAPI)]))) == {"h264_vaapi"}


def test_what_is_left_to_the_processor_is_made_beside_the_rest() -> None:
    """Also by a node that refuses chunks that are for its processors alone; but not by one without the encoder."""
    weak = capability("h264_nvenc", max_width=1280)
    assert "h264_nvenc" in encoders(pin(plan(), 8, [node("weak", weak, CPU, refuses_cpu=True)]))
    assert set(encoders(pin(plan(), 8, [node("weak", weak)]))) == {"libx264"}
    assert set(encoders(pin(plan(1280, 720), 8, [node("weak", weak)]))) == {"h264_nvenc"}


def test_codecs_stay_what_they_are() -> None:
    mixed = with_hevc(plan())
    both = node("a", NVENC, capability("hevc_nvenc"))
    assert encoders(pin(mixed, 8, [both])) == ["hevc_nvenc"] * 2 + ["h264_nvenc"] * (len(mixed.rungs) - 2)
    hevc = CPU.model_copy(update={"encoder": "libx265", "codec": "hevc"})
    assert encoders(pin(mixed, 8, [node("a", NVENC, hevc)]))[:3] == ["libx265", "libx265", "h264_nvenc"]


PLAN = plan()
CAPABILITIES = st.builds(
    capability,
    st.sampled_from(["h264_nvenc", "h264_vaapi", "hevc_nvenc"]),
    usable=st.booleans(),
    min_width=st.sampled_from([2, 146, 700]),
    max_width=st.sampled_from([640, 1280, 4096]),
    bit_depths=st.sampled_from([(8,), (8, 10)]),
)
NODES = st.lists(st.lists(CAPABILITIES, max_size=3), max_size=3).map(
    lambda found: [node(f"n{number}", *can, CPU) for number, can in enumerate(found)]
)


@settings(deadline=None, max_examples=50)
@given(NODES, st.sampled_from([8, 10]))
def test_whoever_takes_a_chunk_can_make_it(nodes: list[NodeReport], bit_depth: int) -> None:
    pinned = pin(PLAN, bit_depth, nodes)
    families = {family_of(encoder) for encoder in encoders(pinned)} - {"cpu"}
    assert len(families) <= 1  # one queue
    takers = [each for each in nodes if all(has_family(each, family) for family in families)]
    for rung in pinned.rungs:
        assert all(can(each, rung.encoder, rung, bit_depth) for each in takers)


# --- pinning anew -----------------------------------------------------------------------------------------------------


def test_a_rung_that_changes_gets_a_new_folder() -> None:
    gpu = pin(plan(), 8, [node("a", NVENC)])
    cpu = repin(gpu, "h264_nvenc", 8, [])
    assert set(encoders(cpu)) == {"libx264"}
    assert [rung.name for rung in cpu.rungs] == [f"{rung.name}-libx264" for rung in gpu.rungs]
    assert [(left.name, left.encoder) for left in cpu.left] == [(rung.name, "h264_nvenc") for rung in gpu.rungs]
    assert (cpu.chunks, cpu.frames, cpu.audio) == (gpu.chunks, gpu.frames, gpu.audio)


def test_it_goes_to_another_family_and_never_back() -> None:
    everywhere = [node("a", NVENC), node("b", VAAPI)]
    first = pin(plan(), 8, everywhere)
    second = repin(first, "h264_nvenc", 8, everywhere)
    assert set(encoders(second)) == {"h264_vaapi"}
    third = repin(second, "h264_vaapi", 8, everywhere)
    assert set(encoders(third)) == {"libx264"}
    assert third.rungs[0].name == "1080p-libx264"
    assert len(third.left) == 2 * len(first.rungs)
    folders = [rung.name for rung in third.left] + [rung.name for rung in third.rungs]
    assert len(set(folders)) == 3 * len(first.rungs)


def test_rungs_of_another_encoder_stay() -> None:
    some = node("a", capability("h264_nvenc", max_width=1280), CPU)
    gpu = pin(plan(), 8, [some])
    cpu = repin(gpu, "h264_nvenc", 8, [])
    assert cpu.rungs[0] == gpu.rungs[0]
    assert set(encoders(cpu)) == {"libx264"}
    # What is kept of a chunk need not be made again.
    part = Part(kind="chunk", name="chunk-00000", number=0, state="pending", result={"tracks": [{"name": "1080p"}]})
    assert rungs_of(cpu, part) == cpu.rungs[1:]


def test_no_chunk_waits_for_two_kinds_of_devices() -> None:
    mixed = with_hevc(plan())
    nodes = [node("a", NVENC, capability("hevc_nvenc")), node("b", VAAPI, capability("hevc_vaapi"))]
    pinned = pin(mixed, 8, nodes)
    changed = repin(pinned, "hevc_nvenc", 8, nodes)
    assert encoders(changed)[:3] == ["libx265", "libx265", "h264_nvenc"]


def test_an_old_plan_is_read_as_it_was() -> None:
    rung = plan().rungs[0].model_dump(mode="json")
    assert Rung.model_validate(rung).encoder == "libx264"
    old = plan().model_dump(mode="json")
    del old["left"]
    assert Plan.model_validate(old) == plan()
