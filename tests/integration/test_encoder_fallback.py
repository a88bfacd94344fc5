"""What follows where a GPU fails: on the real ffmpeg, behind a stand-in that fails as NVENC and VAAPI do.

The chunks are real: made, checked, stored, and the same whatever way they came.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from control.bus.messages import ChunkJob, ChunkResult
from control.bus.work import Work
from control.errors import (
    Cancelled,
    EncoderBusy,
    EncoderFailed,
    EncoderHung,
    EncoderUnavailable,
    KeyframesMisplaced,
    ObjectMissing,
)
from control.settings import MediaSettings, Settings
from media_worker.chunk import make_chunk
from media_worker.encoders import attempts, breaker, sessions
from media_worker.encoders.report import report
from media_worker.ffmpeg import ffmpeg_path
from media_worker.parts import manifest_key
from tests.gpu_stand_in import StandIn
from tests.production import PREFIX, Production, decode_video, media_settings
from tests.services import children

NVENC, VAAPI = "h264_nvenc", "h264_vaapi"
FIRST, SECOND = "nvenc:0", "nvenc:1"
NODE = "vaapi:/dev/dri/renderD128"


class Bench:
    """A recording of 8 s, a node with GPUs of its own, and what is asked of it."""

    def __init__(self, source: Path, folder: Path, **changes: Any) -> None:
        self.gpu = StandIn(folder / "gpu", ffmpeg_path(MediaSettings(_env_file=None)))
        facts: dict[str, Any] = {"devices": [FIRST, SECOND], "ffmpeg": str(self.gpu.path), "hang_seconds": 2.0}
        self.settings = media_settings(folder, source.parent, **(facts | changes))
        self.production = Production(source, folder, self.settings)

    def job(self, index: int = 1, encoder: str = NVENC, **changes: Any) -> ChunkJob:
        job = self.production.chunk_job(index)
        # Large enough for every encoder; the recording's own rungs are not.
        sizes = ((256, 144), (192, 128))
        rungs = tuple(
            rung.model_copy(update={"encoder": encoder, "width": width, "height": height})
            for rung, (width, height) in zip(job.rungs, sizes, strict=True)
        )
        return job.model_copy(update={"rungs": rungs, **changes})

    def make(self, job: ChunkJob | None = None, work: Work | None = None) -> ChunkResult:
        return make_chunk(job or self.job(), self.production.store, self.settings, work or Work("chunk-1", 60))

    def ways(self) -> list[tuple[str, str, str]]:
        return self.gpu.ways()

    def left_behind(self) -> list[Path]:
        """Anything of a chunk in the scratch folder."""
        assert self.settings.scratch is not None
        return [each for each in self.settings.scratch.iterdir() if not each.name.startswith("encoders-")]


@pytest.fixture
def bench(clip: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(attempts, "_incapable", {})
    monkeypatch.setattr(attempts, "_BUSY_SECONDS", 0.1)
    return Bench(clip("eight-seconds"), tmp_path)


def counted(**labels: str) -> float:
    return REGISTRY.get_sample_value("afterlive_encoder_fallbacks_total", labels) or 0.0


def whole(bench: Bench, result: ChunkResult) -> None:
    """All of the chunk is in the store, decodes to the last frame, and nothing else of it is anywhere."""
    assert [track.frames for track in result.tracks] == [60, 60]
    store = bench.production.store
    names = {
        f"{PREFIX}{track.name}/{name}"
        for track in result.tracks
        for name in ("init.mp4", *(segment.name for segment in track.segments))
    }
    assert set(store.list(PREFIX)) == names | {manifest_key(PREFIX, "chunk-00001")}
    for track in result.tracks:
        pictures, _ = decode_video(bench.production.whole(track.name))
        assert len(pictures) == 60
    assert bench.left_behind() == []
    assert children() == []
    assert [sessions.used(bench.settings, device) for device in (FIRST, SECOND)] == [0, 0]


def test_where_nothing_fails_the_best_tier_makes_it(bench: Bench) -> None:
    result = bench.make()
    assert bench.ways() == [(FIRST, "cuda", "made")]
    assert (result.encoder, result.encoders) == (NVENC, (NVENC, NVENC))
    assert (result.device, result.tier, result.fallbacks) == (FIRST, "cuda", ())
    whole(bench, result)


def test_a_session_limit_sends_it_to_the_other_card(bench: Bench) -> None:
    before = counted(encoder=NVENC, to="wait", reason="busy")
    bench.gpu.fail("no session", device=FIRST)
    result = bench.make()
    assert bench.ways() == [(FIRST, "cuda", "no session"), (SECOND, "cuda", "made")]
    assert (result.device, result.tier) == (SECOND, "cuda")
    assert "incompatible client key" in result.fallbacks[0]
    assert counted(encoder=NVENC, to="wait", reason="busy") == before + 1
    assert breaker.state(bench.settings, FIRST).faults == 0, "a full card is not a broken one"
    whole(bench, result)


def test_a_session_that_becomes_free_is_waited_for(bench: Bench) -> None:
    bench.gpu.fail("no memory", times=3)
    result = bench.make()
    assert [outcome for *_, outcome in bench.ways()] == ["no memory"] * 3 + ["made"]
    assert result.tier == "cuda"
    whole(bench, result)


def test_cards_that_stay_full_are_tried_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "WAIT_SECONDS", 0.5)
    bench.gpu.fail("no session")
    with pytest.raises(EncoderBusy) as told:
        bench.make()
    assert told.value.retryable
    assert set(bench.ways()) == {(FIRST, "cuda", "no session"), (SECOND, "cuda", "no session")}
    assert list(bench.production.store.list(PREFIX)) == []
    assert bench.left_behind() == []


@pytest.mark.parametrize(("how", "reason"), [("no decoder", "incapable"), ("too small", "incapable")])
def test_what_a_card_cannot_do_the_next_tier_does(bench: Bench, how: str, reason: str) -> None:
    before = counted(encoder=NVENC, to="cuda-upload", reason=reason)
    bench.gpu.fail(how, tier="cuda")
    result = bench.make()
    assert bench.ways() == [(FIRST, "cuda", how), (SECOND, "cuda", how), (FIRST, "cuda-upload", "made")]
    assert (result.encoder, result.tier) == (NVENC, "cuda-upload")
    assert counted(encoder=NVENC, to="cuda-upload", reason=reason) == before + 1
    whole(bench, result)
    # And it is known now: the next chunk does not ask again.
    bench.make(bench.job(0))
    assert bench.ways()[3:] == [(FIRST, "cuda-upload", "made")]


def test_tiers_of_one_encoder_give_one_init_segment(bench: Bench, clip: Callable[[str], Path], tmp_path: Path) -> None:
    """A fallback in the midst of a replay: other chunks keep what they have."""
    first = bench.make(bench.job(0))
    bench.gpu.fail("no decoder", tier="cuda")
    second = bench.make()
    assert (first.tier, second.tier) == ("cuda", "cuda-upload")
    assert [t.init_sha256 for t in first.tracks] == [t.init_sha256 for t in second.tracks]


@pytest.mark.parametrize("how", ["no driver", "no display"])
def test_a_card_without_a_driver_is_passed_over_in_all_its_tiers(bench: Bench, how: str) -> None:
    bench.gpu.fail(how, device=FIRST)
    result = bench.make()
    assert bench.ways() == [(FIRST, "cuda", how), (SECOND, "cuda", "made")]
    assert result.device == SECOND
    assert breaker.state(bench.settings, FIRST).faults == 1


def test_without_any_driver_the_encoder_cannot_be_had(bench: Bench) -> None:
    """Never another encoder's segments under this one's init: the planner is told."""
    before = counted(encoder=NVENC, to="replan", reason="unavailable")
    bench.gpu.fail("no driver")
    with pytest.raises(EncoderUnavailable, match=r"h264_nvenc .*libcuda") as told:
        bench.make()
    assert not told.value.retryable
    assert told.value.code == "encoder-unavailable"
    assert counted(encoder=NVENC, to="replan", reason="unavailable") == before + 1
    assert list(bench.production.store.list(PREFIX)) == []
    assert bench.left_behind() == []


def test_a_damaged_recording_is_not_the_cards_fault(bench: Bench) -> None:
    """The CPU's decoder bridges more; where it cannot, no other card is tried and none is blamed."""
    bench.gpu.fail("damaged", tier="cuda")
    assert bench.make().tier == "cuda-upload"
    assert bench.ways() == [(FIRST, "cuda", "damaged"), (FIRST, "cuda-upload", "made")]
    bench.gpu.fail("damaged", tier="cuda-upload")
    with pytest.raises(EncoderFailed, match="Invalid data found"):
        bench.make(bench.job(0))
    assert len(bench.ways()) == 4
    assert breaker.state(bench.settings, FIRST).faults == 0


def test_a_recording_that_is_gone_is_not_the_cards_fault(bench: Bench) -> None:
    with pytest.raises(EncoderFailed, match="No such file"):
        bench.make(bench.job(source="/nowhere/gone.mp4"))
    assert breaker.state(bench.settings, FIRST).faults == 0


@pytest.mark.parametrize("how", ["crash", "hang", "wrong grid", "illegal address"])
def test_a_card_that_fails_in_the_midst_is_suspected_and_its_output_gone(bench: Bench, how: str) -> None:
    bench.gpu.fail(how, device=FIRST, tier="cuda", times=1)
    began = time.monotonic()
    result = bench.make()
    assert bench.ways() == [(FIRST, "cuda", how), (SECOND, "cuda", "made")]
    assert breaker.state(bench.settings, FIRST).faults == 1
    assert breaker.state(bench.settings, SECOND).faults == 0
    assert time.monotonic() - began < 30
    whole(bench, result)


@pytest.mark.parametrize(
    ("how", "error"), [("crash", EncoderFailed), ("hang", EncoderHung), ("wrong grid", KeyframesMisplaced)]
)
def test_where_all_fail_it_is_tried_again_until_the_breaker_has_seen_enough(
    bench: Bench, how: str, error: type[Exception]
) -> None:
    bench.settings.devices = [FIRST]
    bench.gpu.fail(how)
    job = bench.job(entry_pts=None) if how != "hang" else bench.job(0)
    with pytest.raises(error):
        bench.make(job)
    assert bench.ways()[:2] == [(FIRST, "cuda", how), (FIRST, "cuda-upload", how)]
    with pytest.raises(EncoderUnavailable):
        bench.make(job)
    assert breaker.is_open(bench.settings, FIRST)
    started = len(bench.ways())
    with pytest.raises(EncoderUnavailable, match="left alone"):
        bench.make(job)
    assert len(bench.ways()) == started, "an open breaker lets nothing through"
    assert bench.left_behind() == []
    assert children() == []


def test_a_card_that_is_left_alone_is_tried_by_one_chunk_after_its_pause(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.settings.devices = [FIRST]
    monkeypatch.setattr(breaker, "FIRST_SECONDS", 0.2)
    for _ in range(breaker.THRESHOLD):
        breaker.failed(bench.settings, FIRST, "crashed")
    with pytest.raises(EncoderUnavailable):
        bench.make()
    time.sleep(0.3)
    whole(bench, bench.make())
    assert breaker.state(bench.settings, FIRST) == breaker.State()


def test_vaapi_falls_back_within_itself(bench: Bench) -> None:
    bench.settings.devices = [NODE]
    bench.gpu.fail("no entrypoint", tier="vaapi")
    result = bench.make(bench.job(encoder=VAAPI))
    assert bench.ways() == [(NODE, "vaapi", "no entrypoint"), (NODE, "vaapi-upload", "made")]
    assert (result.encoder, result.device, result.tier) == (VAAPI, NODE, "vaapi-upload")
    bench.gpu.fail("va busy", times=1)
    assert bench.make(bench.job(0, encoder=VAAPI)).tier == "vaapi-upload"


def test_a_cancelled_chunk_says_nothing_of_the_card(bench: Bench) -> None:
    bench.settings.hang_seconds = 60
    bench.gpu.fail("hang", times=1)
    cancelled = threading.Event()
    threading.Timer(1.0, cancelled.set).start()
    with pytest.raises(Cancelled):
        bench.make(work=Work("chunk-1", 60, cancelled=cancelled))
    assert breaker.state(bench.settings, FIRST).faults == 0
    assert sessions.used(bench.settings, FIRST) == 0
    assert children() == []


def test_chunks_spread_over_the_cards(bench: Bench) -> None:
    """Two rungs a chunk, three sessions a card: a second chunk goes to the other one."""
    bench.settings.sessions_per_device = 3
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(bench.make, [bench.job(0), bench.job(1)]))
    assert {result.device for result in made} == {FIRST, SECOND}


def test_a_chunk_of_more_rungs_than_sessions_is_made_in_passes(bench: Bench) -> None:
    bench.settings.sessions_per_device = 1
    result = bench.make()
    assert [outcome for *_, outcome in bench.ways()] == ["made", "made"]
    whole(bench, result)


def test_a_rung_too_small_for_the_card_is_made_beside_the_others(bench: Bench) -> None:
    job = bench.job()
    small = job.rungs[1].model_copy(update={"width": 64, "height": 36, "encoder": "libx264"})
    bench.settings.refuse_cpu = True
    result = bench.make(job.model_copy(update={"rungs": (job.rungs[0], small)}))
    assert result.encoders == (NVENC, "libx264")
    assert bench.ways() == [(FIRST, "cuda", "made")]
    whole(bench, result)
    with pytest.raises(EncoderUnavailable, match="64 × 36"):
        bench.make(job.model_copy(update={"rungs": (small.model_copy(update={"encoder": NVENC}),)}))


def test_what_only_the_cpus_filters_do_is_decoded_there(bench: Bench) -> None:
    job = bench.job()
    woven = job.video.model_copy(update={"interlaced": True})
    assert bench.make(job.model_copy(update={"video": woven})).tier == "cuda-upload"
    assert bench.ways() == [(FIRST, "cuda-upload", "made")]


def test_ten_bits_go_where_they_can_be_had(bench: Bench) -> None:
    """As the probes found: to the other card, to the next tier, to another node."""
    bench.gpu.fail("no decoder", device=FIRST, naming="probe-10-bits")
    bench.gpu.fail("no decoder", tier="cuda", naming="probe-10-bits")
    settings = Settings(_env_file=None, media=bench.settings)
    bench.settings.encoders = [NVENC]
    report(settings)
    asked = len(bench.ways())
    job = bench.job()
    deep = job.model_copy(update={"video": job.video.model_copy(update={"bit_depth": 10})})
    assert (bench.make(deep).device, bench.ways()[asked:]) == (SECOND, [(SECOND, "cuda-upload", "made")])
    bench.gpu.fail("no decoder", naming="probe-10-bits")
    report(settings, fresh=True)
    with pytest.raises(EncoderUnavailable, match="10 bits"):
        bench.make(deep.model_copy(update={"part": "chunk-00007"}))


def test_the_cpu_of_a_node_with_a_card_is_used_loudly_or_not_at_all(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media_worker.chunk._said", None)
    before = counted(encoder=NVENC, to="libx264", reason="planned")
    result = bench.make(bench.job(encoder="libx264"))
    assert (result.device, result.tier) == ("cpu", "cpu")
    assert counted(encoder=NVENC, to="libx264", reason="planned") == before + 1
    assert "on the CPU of a node with nvenc:0" in caplog.text
    bench.settings.refuse_cpu = True
    with pytest.raises(EncoderUnavailable, match="refuses to encode on its CPU"):
        bench.make(bench.job(0, encoder="libx264"))
    with pytest.raises(ObjectMissing):
        bench.production.store.get_bytes(manifest_key(PREFIX, "chunk-00000"))


def test_an_encoder_that_is_not_allowed_here(bench: Bench) -> None:
    bench.settings.encoders = ["libx264"]
    with pytest.raises(EncoderUnavailable, match="AFTERLIVE_MEDIA_ENCODERS"):
        bench.make()
    assert bench.gpu.calls() == []


def test_a_rung_planned_anew_is_made_anew(bench: Bench) -> None:
    """What another encoder left under the same name does not count."""
    first = bench.make(bench.job(encoder="libx264"))
    second = bench.make()
    assert not second.reused
    assert second.encoder == NVENC
    assert bench.make().reused
    assert first.tracks[0].name == second.tracks[0].name
