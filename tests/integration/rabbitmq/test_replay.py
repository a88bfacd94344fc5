"""From a stream's end to its replay as production does it: five processes, four servers, no disk in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kombu import Connection, Queue

from control.bus.topology import EVENTS
from control.storage import open_store
from tests import services
from tests.e2e.recordings import make
from tests.integration.rabbitmq.conftest import Works


def test_a_replay_of_a_recording_in_the_store(works: Works, s3_server: services.S3Server, tmp_path: Path) -> None:
    """A media node has broker and store, nothing else: no database, no folder of recordings, no key of the API."""
    env = works.platform.env
    api = works.platform.api()
    nothing = {name: "" for name in env if name.startswith(("AFTERLIVE_API_",))}
    media = works.platform.worker(
        "media", **(nothing | {"AFTERLIVE_DATABASE_URL": "nowhere://", "AFTERLIVE_MEDIA_RECORDING_ROOTS": "[]",
                               "AFTERLIVE_API_KEYS": "[]", "AFTERLIVE_API_PORT": "8000",
                               "AFTERLIVE_API_PLAYBACK_LINK_SECONDS": "60"}),
    )  # fmt: skip
    works.platform.consuming(media, works.platform.worker("fast"), works.platform.worker("notify"))
    recording = make(tmp_path / "recording.mp4", seconds=20, size="320x180")
    bucket = env["AFTERLIVE_STORAGE_URL"].removeprefix("s3://").strip("/")
    store = open_store(s3_server.settings(bucket))
    store.put_file("recordings/live/one.mp4", recording)
    client = works.platform.client(api)
    with Connection(works.platform.broker_url) as connection:
        events = bound_to_events(connection)
        stream = client.post("/streams", json={"title": "Far away"}).raise_for_status().json()["id"]
        refused = client.post(f"/streams/{stream}/end", json={"recording": "store:replays/other/source.mp4"})
        assert (refused.status_code, refused.json()["code"]) == (422, "recording-outside-roots")
        client.post(f"/streams/{stream}/end", json={"recording": "store:recordings/live/one.mp4"}).raise_for_status()

        def state() -> str:
            return str(client.get(f"/streams/{stream}").json()["replay"]["state"])

        works.until(lambda: state() in ("completed", "failed"), "the replay is made", seconds=90)
        assert state() == "completed"
        prefix = client.get(f"/streams/{stream}").json()["replay"]["prefix"]
        assert store.size(f"{prefix}master.m3u8")
        assert [event["event"] for event in told(connection, events)] == [
            "stream.ended", "replay.planned", "replay.playable", "replay.completed",
        ]  # fmt: skip
        replay_id = client.get(f"/streams/{stream}").json()["replay"]["id"]
        found = client.get("/tasks", params={"key": replay_id}).raise_for_status().json()["items"]
        assert {task["state"] for task in found if task["task"].startswith("media.")} == {"SUCCESS"}
    assert "nowhere" not in media.said()


def bound_to_events(connection: Connection) -> Queue:
    """As anybody might who wants to know."""
    queue = Queue("listener", EVENTS, routing_key="#", exclusive=True, durable=False)
    bound = queue(connection.default_channel)
    bound.declare()
    return bound


def told(connection: Connection, queue: Any) -> list[dict[str, Any]]:
    heard = []
    while (message := queue.get(no_ack=True)) is not None:
        heard.append(json.loads(message.body))
    del connection
    return heard
