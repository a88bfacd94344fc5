"""The catalogue: what may be sent, under which policy, and that each of it has one body somewhere."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.bus import names
from control.bus.app import MEDIA, NOTIFY, PIPELINES, make_app
from control.bus.names import CATALOGUE, Retry, TaskSpec
from control.bus.outcome import backoff_seconds
from control.bus.publish import masked
from control.settings import BusSettings
from pipelines.schedule import SCHEDULE

# RabbitMQ takes a message back from a worker that holds it longer (consumer_timeout, rabbitmq.com/docs/consumers).
CONSUMER_TIMEOUT_SECONDS = 30 * 60

_BODIES = """
import json, sys
from control.bus.app import make_app
from control.settings import BusSettings
app = make_app(BusSettings(_env_file=None), sys.argv[1:])
app.loader.import_default_modules()
print(json.dumps(sorted(name for name in app.tasks if not name.startswith("celery."))))
"""


def bodies(*modules: str) -> set[str]:
    """Names of the tasks that `modules` bring, as a worker of their own would find them."""
    done = subprocess.run([sys.executable, "-c", _BODIES, *modules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_every_task_is_in_the_catalogue_and_has_one_body() -> None:
    of = {"pipelines": bodies(PIPELINES), "media": bodies(MEDIA), "notify": bodies(NOTIFY)}
    assert sorted(name for names_ in of.values() for name in names_) == sorted(CATALOGUE)
    for prefix, found in of.items():
        assert {name.partition(".")[0] for name in found} == {prefix}


def test_no_row_was_forgotten() -> None:
    rows = [value for value in vars(names).values() if isinstance(value, TaskSpec)]
    assert {row.name: row for row in rows} == CATALOGUE
    assert len(rows) == len(CATALOGUE)


@pytest.mark.parametrize("spec", CATALOGUE.values(), ids=lambda spec: spec.name)
def test_each_row_can_be_kept(spec: TaskSpec) -> None:
    assert spec.queue in names.QUEUES
    assert set(spec.also) <= set(names.QUEUES) - {spec.queue}
    assert 0 < spec.soft_seconds < spec.hard_seconds < CONSUMER_TIMEOUT_SECONDS
    assert spec.retry.times >= 0
    assert 0 < spec.retry.first_seconds <= spec.retry.most_seconds
    # Messages may come twice.
    assert spec.idempotent


@pytest.mark.parametrize("spec", [row for row in CATALOGUE.values() if row.name.startswith("media.")])
def test_media_tasks_have_their_tier_s_policy(spec: TaskSpec) -> None:
    assert (spec.queue, spec.reports_to_replay) == (names.LOW, True)
    assert (spec.retry.times, spec.retry.first_seconds) == (3, 60)


def test_a_chunk_is_given_up_within_ten_minutes() -> None:
    assert names.TRANSCODE_CHUNK.soft_seconds <= 600


def test_the_queues_are_those_of_the_platform() -> None:
    gpus = ("low_priority.nvenc", "low_priority.vaapi")
    assert ("high_priority", "default", "low_priority", *gpus) == names.QUEUES
    assert names.FAILED == "failed_tasks"


def test_beat_sends_what_the_catalogue_has() -> None:
    for entry in SCHEDULE.values():
        spec = CATALOGUE[entry["task"]]
        assert entry["options"]["queue"] == spec.queue
        assert entry["options"]["ignore_result"]


@given(
    retry=st.builds(Retry, times=st.just(5), first_seconds=st.floats(0.1, 100), most_seconds=st.floats(100, 1000)),
    attempt=st.integers(0, 40),
)
def test_waits_grow_exponentially_up_to_the_limit(retry: Retry, attempt: int) -> None:
    waits = [backoff_seconds(retry, attempt) for _ in range(20)]
    longest = min(retry.most_seconds, retry.first_seconds * 2**attempt)
    assert all(0 <= wait <= longest for wait in waits)
    assert len(set(waits)) > 1  # jitter: of many that failed together, not all come back together


def test_secrets_are_masked_and_jobs_are_named_alone() -> None:
    spec = dataclasses.replace(names.HANDLE_FACT, secret=frozenset({"code"}))
    job = {"replay_id": "rep_1", "run": 2, "part": "audio", "source": "/private/recording.mp4"}
    shown = masked(spec, {"code": "123456", "phone": "0912", "job": job})
    assert shown == {"code": "***", "phone": "0912", "job": {"replay_id": "rep_1", "run": 2, "part": "audio"}}


def test_one_configuration_serves_both_brokers() -> None:
    embedded = make_app(BusSettings(_env_file=None)).conf
    production = make_app(BusSettings(_env_file=None, broker_url="amqp://localhost//")).conf
    for conf in (embedded, production):
        assert conf.accept_content == ["json"]
        assert conf.task_acks_late
        assert conf.task_acks_on_failure is False
        assert conf.task_reject_on_worker_lost
        assert conf.worker_prefetch_multiplier == 1
        assert [queue.name for queue in conf.task_queues] == list(names.QUEUES)
        assert {queue.exchange.type for queue in conf.task_queues} == {"topic"}
        assert {name: route["routing_key"] for name, route in conf.task_routes.items()} == {
            name: f"{spec.queue}.{name}" for name, spec in CATALOGUE.items()
        }
    assert {queue.queue_arguments["x-queue-type"] for queue in production.task_queues} == {"quorum"}
    assert {queue.queue_arguments for queue in embedded.task_queues} == {None}
