"""A tier's process: it drains, it outlives its broker, it knows whether it consumes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import psutil
import pytest
from kombu import Connection

from control.bus.app import TIERS
from control.bus.topology import DIRECT
from control.settings import MediaSettings
from media_worker.encoders.devices import gpus
from tests import brokers, chores
from tests.integration.rabbitmq.conftest import Works
from tests.platform import Process


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_fast_task_is_finished_before_the_process_ends(works: Works) -> None:
    """Acknowledged too: nobody does it again."""
    first = works.platform.worker("fast")
    works.platform.consuming(first)
    works.send(chores.SLOW, number=1, seconds=1.5)
    works.until(lambda: 'afterlive_tasks_in_flight{task="tests.slow"} 1.0' in first.metrics(), "it runs")
    assert first.terminate() == 0
    assert works.effects() == (1, 1)
    second = works.platform.worker("fast")
    works.platform.consuming(second)
    works.send(chores.SELL, number=2)
    works.until(lambda: works.effects() == (2, 2), "the next")
    assert "task=tests.slow" not in second.said()


def test_a_chunk_is_handed_back_at_once(works: Works, tmp_path: Path) -> None:
    """To another node; as the first try it still is."""
    first = works.platform.worker("media", AFTERLIVE_MEDIA_CONCURRENCY="2")
    works.platform.consuming(first)
    for number in range(4):
        works.send(chores.STUDIO, number=number, seconds=30 if number < 2 else 0.1, folder=str(tmp_path))
    works.until(lambda: lines(tmp_path / "0") and lines(tmp_path / "1"), "both run")
    assert first.process is not None
    gives_way = min(19, psutil.Process().nice() + TIERS["media"].nice)
    assert psutil.Process(first.process.pid).nice() == gives_way
    threads = {os.sched_getscheduler(thread.id) for thread in psutil.Process(first.process.pid).threads()}
    # Those of tasks, unless they feed a card; those that keep it alive.
    assert threads == ({os.SCHED_OTHER} if gpus(MediaSettings(_env_file=None)) else {os.SCHED_IDLE, os.SCHED_OTHER})
    asked = time.monotonic()
    assert first.terminate() == 0
    assert time.monotonic() - asked < 15  # the work itself takes thirty seconds
    assert len(lines(tmp_path / "0")) == len(lines(tmp_path / "1")) == 1
    assert first.said().count("outcome=handed-back") == 2
    second = works.platform.worker("media", AFTERLIVE_MEDIA_CONCURRENCY="4")
    works.until(lambda: all(len(lines(tmp_path / str(number))) >= 2 for number in range(4)), "others work on them")
    assert {line.split()[1] for number in range(2) for line in lines(tmp_path / str(number))} == {"1"}
    second.terminate()


@pytest.mark.slow  # what `tests/chaos` shows too, of all tiers at once
def test_it_outlives_its_broker(works: Works, tmp_path: Path) -> None:
    """Killed and restarted, with a worker in the middle of a task."""
    folder = tmp_path / "own-broker"
    folder.mkdir()
    with brokers.rabbitmq(folder) as broker:
        url = broker.vhost()
        works.platform.env["AFTERLIVE_BUS_BROKER_URL"] = url
        worker = works.platform.worker("fast")
        works.platform.consuming(worker)
        from control.bus.app import make_app
        from control.bus.publish import publisher_of, send
        from control.settings import BusSettings

        app = make_app(BusSettings(_env_file=None, broker_url=url))
        for number in range(50):
            send(app, chores.SLOW, {"number": number, "seconds": 0.5})
        works.until(lambda: works.effects()[0] >= 5, "some are done")
        broker.kill()
        broker.start()
        works.until(lambda: works.effects()[1] == 50, "all are done", seconds=60)
        send(app, chores.SELL, {"number": 50}, patience_seconds=10)
        works.until(lambda: works.effects() == (51, 51), "each once, and the next as well")
        publisher_of(app).close()
        worker.terminate()


@pytest.fixture
def worker(works: Works) -> Process:
    made = works.platform.worker("fast")
    works.platform.consuming(made)
    return made


def test_health_and_metrics(works: Works, worker: Process) -> None:
    assert worker.healthy()
    for number in range(20):
        works.send(chores.SELL, number=number)
    works.until(lambda: works.effects() == (20, 20), "they are done")
    text = worker.metrics()
    assert 'afterlive_queue_latency_seconds_count{queue="high_priority",task="tests.sell"} 20.0' in text
    assert 'afterlive_task_seconds_count{outcome="done",task="tests.sell"} 20.0' in text
    assert "afterlive_outbox_depth 0.0" in text
    assert "afterlive_outbox_age_seconds 0.0" in text
    assert httpx.get(f"http://127.0.0.1:{worker.port}/else").status_code == 404


def test_a_task_straight_to_a_queue_by_its_name(works: Works, worker: Process) -> None:
    """By the direct exchange, for whoever the broker lets; the name alone is the address."""
    with Connection(works.platform.broker_url, transport_options={"confirm_publish": True}) as connection:
        for number, key in ((1, "high_priority"), (2, "default")):
            connection.Producer(serializer="json").publish(
                [[], {"number": number}, {}], exchange=DIRECT.name, routing_key=key, declare=[],
                headers={"id": f"direct-{number}", "task": "tests.sell", "lang": "py"}, correlation_id="x",
            )  # fmt: skip
    works.until(lambda: works.effects() == (1, 1), "it is done")
    assert "task=tests.sell id=direct-1" in worker.said()


def test_a_worker_without_queues_says_what_to_run(works: Works, rabbitmq: brokers.RabbitMQ) -> None:
    url = rabbitmq.vhost(topology=False)
    done = works.platform.run("worker", "fast", AFTERLIVE_BUS_BROKER_URL=url)
    assert done.returncode == 1
    assert "run 'afterlive topology' first" in done.stderr
    assert "Traceback" not in done.stderr
    rabbitmq.forget(url)


def test_a_port_that_is_taken_is_named(works: Works, worker: Process) -> None:
    done = works.platform.run("worker", "fast", "--port", str(worker.port))
    assert done.returncode == 1
    assert "AFTERLIVE_WORKER_PORT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("tier", ["fast", "notify", "media"])
def test_a_worker_needs_a_real_broker(works: Works, tier: str) -> None:
    done = works.platform.run("worker", tier, AFTERLIVE_BUS_BROKER_URL="memory://")
    assert done.returncode == 1
    assert "AFTERLIVE_BUS_BROKER_URL" in done.stderr
