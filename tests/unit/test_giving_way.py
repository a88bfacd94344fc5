"""Who gives way to latency-bound work besides ffmpeg, and who sees to it that nobody waits behind an encoder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import signals
from celery.apps.worker import Worker
from celery.utils.dispatch import Signal

from control.settings import Settings, use
from media_worker import tasks
from media_worker.giving_way import give_way
from media_worker.pacer import Pacer

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="no such scheduling class here")


def in_a_thread(function: Callable[[], Any]) -> Any:
    """What it returns there; what is set for that thread is gone with it."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("devices", [[], ["nvenc:0"]])
@pytest.mark.parametrize("own_process", [True, False])
def test_threads_of_media_tasks_give_way_in_a_process_of_their_own_without_gpus(
    settings: Settings, devices: list[str], own_process: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media_worker.encoders.devices.DEV", Path("/nowhere"))
    for what in ("report", "metrics.watch", "IDLE_GROUP.open"):
        monkeypatch.setattr(f"media_worker.tasks.{what}", lambda *_: None)
    monkeypatch.setattr(signals, "task_prerun", Signal(name="task_prerun"))
    use(settings.model_copy(update={"media": settings.media.model_copy(update={"devices": devices})}))
    tasks._prepare(sender=Worker.__new__(Worker) if own_process else object())

    def policy() -> int:
        signals.task_prerun.send(sender=None)
        return os.sched_getscheduler(0)

    assert in_a_thread(policy) == (os.SCHED_IDLE if own_process and not devices else os.SCHED_OTHER)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_one_that_has_ended_is_nobody() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    give_way(child.pid)


def pacing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("pacer-")]


def wake_ups(thread: threading.Thread) -> int:
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_each_core_is_looked_in_at_while_an_encoder_runs_and_only_then() -> None:
    pacer = Pacer()
    pacer.start(0.001)
    pacer.start(0.001)  # once is enough
    try:
        threads = pacing_threads()
        assert len(threads) == len(os.sched_getaffinity(0))
        for _ in range(2):
            time.sleep(0.1)
            before = [wake_ups(thread) for thread in threads]
            time.sleep(0.2)
            assert [wake_ups(thread) for thread in threads] == before
            with pacer.pacing(), pacer.pacing():
                time.sleep(0.5)
            assert all(wake_ups(thread) > count + 50 for thread, count in zip(threads, before, strict=True))
        cores = [os.sched_getaffinity(thread.native_id or 0) for thread in threads]
        assert sorted(cores, key=sorted) == [{core} for core in sorted(os.sched_getaffinity(0))]
    finally:
        pacer.stop()
    assert not pacing_threads()


def test_by_default_nobody_does() -> None:
    pacer = Pacer()
    pacer.start(0)
    with pacer.pacing():
        assert not pacing_threads()
    pacer.stop()
