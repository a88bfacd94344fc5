"""One trace from a request to all that follows from it, on the real API, ledger, relay and bus."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import select

from control import tracing
from control.api.app import create_app
from control.bus import names
from control.bus.embedded import Embedded
from control.bus.names import Retry
from control.bus.publish import send
from control.errors import ConfigurationError, OutputRejected
from control.ledger import outbox
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.settings import Settings, TracingSettings
from control.storage import open_store
from tests.api_server import serving
from tests.bus import bus, catalogued, spec_of, until
from tests.conftest import API_KEY
from tests.fake_media import Studio
from tests.traces import Memory, Seen, traced

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
END = "POST /streams/{stream_id}/end"
CHUNK = "run media.transcode_chunk"


@dataclass
class Platform:
    client: httpx.Client
    running: Embedded

    def end(self, recording: str = "60s.mp4", **headers: str) -> str:
        stream = self.client.post("/streams", json={"title": "one"}).raise_for_status().json()["id"]
        ended = self.client.post(f"/streams/{stream}/end", json={"recording": recording}, headers=headers)
        ended.raise_for_status()
        return str(stream)

    def becomes(self, stream: str, state: str) -> None:
        def is_there() -> bool:
            return bool(self.client.get(f"/streams/{stream}").json()["replay"]["state"] == state)

        until(is_there, f"the replay is {state}", 30)


@pytest.fixture
def studio() -> Studio:
    return Studio()


@pytest.fixture
def platform(settings: Settings, studio: Studio) -> Iterator[Platform]:
    (settings.media.recording_roots[0] / "60s.mp4").write_bytes(b"a recording")
    with bus(settings, *studio.bodies()) as running:
        store = open_store(settings.storage)
        app = create_app(settings, running.ledger, store, wake=running.relay.wake)
        headers = {"Authorization": f"Bearer {API_KEY}"}
        with serving(app) as url, httpx.Client(base_url=url, headers=headers, timeout=10) as client:
            yield Platform(client, running)


def test_one_trace_leads_from_the_request_to_the_last_chunk(platform: Platform, studio: Studio) -> None:
    with traced() as memory:
        stream = platform.end()
        platform.becomes(stream, "completed")
        chunks = sorted(name for name in studio.made if "chunk" in name)
        assert len(chunks) > 1
        until(lambda: len(memory.look().named("run pipelines.publish_replay")) >= 1, "the last of it has ended")
        (request,) = memory.named(END)
        assert request.parent == ""
        made = memory.named(CHUNK)
        assert len(made) == len(chunks)
        assert {one.trace for one in made} == {request.trace}
        for one in made:
            way = memory.from_the_first(one)
            assert way[0] == END
            assert way[-2:] == ["send media.transcode_chunk", CHUNK]
            assert "run media.process_stream_recording" in way
            assert "run pipelines.part_done" in way
        assert {one.facts["afterlive.outcome"] for one in made} == {"done"}
        (created,) = memory.named("POST /streams")
        assert created.trace != request.trace


def test_each_of_many_that_come_at_once_has_a_trace_of_its_own(platform: Platform) -> None:
    """They are committed together where they are not traced; what follows must still be told apart."""
    with traced() as memory, ThreadPoolExecutor(4) as pool:
        streams = list(pool.map(lambda _: platform.end(), range(4)))
        for stream in streams:
            platform.becomes(stream, "completed")
        until(lambda: len(memory.look().named("run media.process_stream_recording")) == 4, "all are probed")
        ends = {one.trace for one in memory.named(END)}
        assert len(ends) == 4
        assert {one.trace for one in memory.named("run media.process_stream_recording")} == ends


def test_the_time_in_the_outbox_is_in_the_trace(platform: Platform) -> None:
    with traced() as memory:
        platform.becomes(platform.end(), "completed")
        (request,) = memory.look().named(END)
        sent: Seen = next(one for one in memory.named("send pipelines.handle_fact") if one.trace == request.trace)
        (run,) = [one for one in memory.named("run pipelines.handle_fact") if one.parent == sent.id]
        assert request.start_ns <= sent.start_ns <= sent.end_ns
        assert sent.start_ns < run.start_ns


def test_another_try_follows_from_the_one_before(settings: Settings) -> None:
    tries: list[str | None] = []

    def work() -> None:
        tries.append(tracing.here())
        if len(tries) == 1:
            raise RuntimeError("made to fail")

    spec = spec_of()
    with catalogued(spec), bus(settings, (spec, work)) as running, traced() as memory:
        with tracing.within(PARENT):
            send(running.app, spec, {})
        until(lambda: len(memory.look().named("run tests.work")) == 2, "it was tried twice")
        first, second = sorted(memory.seen, key=lambda one: one.start_ns)
    assert (f"00-{first.trace}-{first.parent}-01", second.parent) == (PARENT, first.id)
    assert [one.facts["afterlive.outcome"] for one in (first, second)] == ["retry", "done"]
    assert len(set(tries)) == 2


def test_what_fails_finally_is_marked(settings: Settings) -> None:
    def work() -> None:
        raise OutputRejected(key="x", reason="made to fail")

    spec = spec_of(retry=Retry(times=0))
    with catalogued(spec), bus(settings, (spec, work)) as running, traced() as memory:
        with tracing.within(PARENT):
            send(running.app, spec, {})
        until(lambda: memory.look().named("run tests.work"), "it ended")
    (found,) = memory.named("run tests.work")
    assert (found.failed, found.facts["afterlive.outcome"]) == (True, "failed")


def test_a_callers_trace_is_gone_on_with(platform: Platform) -> None:
    with traced() as memory:
        platform.becomes(platform.end(traceparent=PARENT), "completed")
        until(lambda: memory.look().named(CHUNK), "a chunk is made")
        assert {one.trace for one in memory.named(END) + memory.named(CHUNK)} == {PARENT.split("-")[1]}


def test_nobody_but_the_share_decides_what_is_traced(platform: Platform) -> None:
    with traced(share=0) as memory:
        stream = platform.end(traceparent=PARENT)
        for offered in ("00-nonsense-01", "", "x"):
            platform.client.get("/streams", headers={"traceparent": offered}).raise_for_status()
        platform.becomes(stream, "completed")
        assert memory.look().seen == []
    with traced() as memory:
        for offered in ("00-nonsense-01", "", "x"):
            platform.client.get("/streams", headers={"traceparent": offered}).raise_for_status()
        assert [one.parent for one in memory.look().named("GET /streams")] == ["", "", ""]


def test_rows_and_messages_are_as_ever_where_nothing_is_traced(ledger: Ledger) -> None:
    assert tracing.here() is None
    with tracing.within(PARENT), ledger.write() as session:
        outbox.add(session, names.PUBLISH_REPLAY, {"replay_id": "r", "run": 1})
    with ledger.read() as session:
        assert session.scalars(select(OutboxRow)).one().payload == {"replay_id": "r", "run": 1}


def test_a_row_says_what_it_belongs_to_and_its_message_does_not_tell_the_task(ledger: Ledger) -> None:
    with traced():
        with tracing.within(PARENT), ledger.write() as session:
            outbox.add(session, names.PUBLISH_REPLAY, {"replay_id": "r", "run": 1})
            outbox.announce(session, "replay.playable", {"replay_id": "r"})
        with ledger.read() as session:
            rows = session.scalars(select(OutboxRow)).all()
        assert {row.payload[outbox.TRACE].split("-")[1] for row in rows} == {PARENT.split("-")[1]}


def test_a_thread_knows_only_its_own(ledger: Ledger) -> None:
    with traced(), tracing.within(PARENT):
        assert tracing.here() == PARENT
        found: list[str | None] = []
        thread = threading.Thread(target=lambda: found.append(tracing.here()))
        thread.start()
        thread.join()
        assert found == [None]


def test_without_its_packages_tracing_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    tracing.start(TracingSettings(_env_file=None), "api")
    with pytest.raises(ConfigurationError, match="AFTERLIVE_TRACING_ENDPOINT"):
        tracing.start(TracingSettings(_env_file=None, endpoint="http://127.0.0.1:1/v1/traces"), "api")


def test_spans_hold_no_path_and_no_argument(platform: Platform) -> None:
    """A path of playback is a key to what it leads to."""
    with traced() as memory:
        stream = platform.end()
        platform.becomes(stream, "completed")
        player = platform.client.get(f"/streams/{stream}").json()["player_url"]
        assert httpx.get(player).status_code == 200
        signed = player.rstrip("/").rpartition("/")[2]
        told = " ".join(f"{one.name} {one.facts}" for one in memory.look().seen)
        assert signed not in told
        assert "60s.mp4" not in told
        assert _facts(memory) <= {"task_id", "queue", "attempt", "waited_seconds", "outcome", "request_id", "status"}


def _facts(memory: Memory) -> set[str]:
    return {name.removeprefix("afterlive.") for one in memory.seen for name in one.facts}
