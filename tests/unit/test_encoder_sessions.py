"""Sessions and breakers, shared by the processes of a node."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from control.settings import MediaSettings
from media_worker.encoders import breaker, sessions

CARD, OTHER = "nvenc:0", "nvenc:1"
# Another worker of the node: takes what it is told to, says so, and holds it until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from control.settings import MediaSettings
from media_worker.encoders import sessions
settings = MediaSettings(_env_file=None, scratch=Path(sys.argv[1]), sessions_per_device=4)
with sessions.take(settings, "nvenc:0", int(sys.argv[2])) as had:
    print(had, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def media(tmp_path: Path) -> MediaSettings:
    return MediaSettings(_env_file=None, scratch=tmp_path / "scratch", sessions_per_device=4)


def test_sessions_are_had_all_or_none_and_given_back(media: MediaSettings) -> None:
    with sessions.take(media, CARD, 3) as first:
        assert first
        assert (sessions.free(media, CARD), sessions.used(media, CARD)) == (1, 3)
        with sessions.take(media, CARD, 2) as second:
            assert not second
            assert sessions.free(media, CARD) == 1, "half of what it wanted would be of no use to it"
        with sessions.take(media, CARD, 1) as third, sessions.take(media, OTHER, 4) as elsewhere:
            assert third
            assert elsewhere
    assert sessions.free(media, CARD) == 4


def test_no_more_than_the_limit_at_a_time_whatever_the_threads(media: MediaSettings) -> None:
    running, most, done = 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most, done
        for _ in range(40):
            with sessions.take(media, CARD, 2) as had:
                if had:
                    with lock:
                        running += 2
                        most, done = max(most, running), done + 1
                    with lock:
                        running -= 2

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 4
    assert done > 0
    assert sessions.free(media, CARD) == 4


def test_a_worker_that_is_killed_gives_its_sessions_back(media: MediaSettings) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(media.scratch), "3"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "True"
        assert sessions.free(media, CARD) == 1
        with sessions.take(media, CARD, 2) as had:
            assert not had
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout:
            holder.stdout.close()
    assert sessions.free(media, CARD) == 4


def test_a_breaker_opens_after_faults_in_a_row(media: MediaSettings) -> None:
    for number in range(1, breaker.THRESHOLD + 1):
        assert breaker.allow(media, CARD, now=1000.0 + number)
        opened = breaker.failed(media, CARD, "it hung", now=1000.0 + number)
        assert opened is (number == breaker.THRESHOLD)
    assert breaker.is_open(media, CARD, now=1010.0)
    assert not breaker.allow(media, CARD, now=1010.0)
    assert breaker.allow(media, OTHER, now=1010.0)
    assert breaker.state(media, CARD).reason == "it hung"


def test_faults_far_apart_or_with_success_between_open_nothing(media: MediaSettings) -> None:
    for number in range(10):
        assert not breaker.failed(media, CARD, "x", now=number * (breaker.WINDOW_SECONDS + 1))
    breaker.succeeded(media, CARD)
    for number in range(10):
        assert not breaker.failed(media, CARD, "x", now=20_000.0 + number)
        breaker.succeeded(media, CARD)
    assert not breaker.is_open(media, CARD)


def opened(media: MediaSettings, now: float) -> None:
    for _ in range(breaker.THRESHOLD):
        breaker.failed(media, CARD, "x", now=now)


def test_one_chunk_tries_after_the_pause_and_the_pause_doubles(media: MediaSettings) -> None:
    now = 1000.0
    opened(media, now)
    pause = breaker.FIRST_SECONDS
    for _ in range(6):
        assert not breaker.allow(media, CARD, now=now + pause - 1)
        now += pause + 1
        assert not breaker.is_open(media, CARD, now=now)
        assert breaker.allow(media, CARD, now=now)
        assert not breaker.allow(media, CARD, now=now), "one, not all that wait"
        assert breaker.is_open(media, CARD, now=now)
        breaker.failed(media, CARD, "x", now=now)
        pause = min(2 * pause, breaker.LONGEST_SECONDS)
    assert pause == breaker.LONGEST_SECONDS
    now += pause + 1
    assert breaker.allow(media, CARD, now=now)
    breaker.succeeded(media, CARD)
    assert breaker.state(media, CARD) == breaker.State()


def test_a_trial_that_says_nothing_lets_another_try(media: MediaSettings) -> None:
    opened(media, 1000.0)
    later = 1001.0 + breaker.FIRST_SECONDS
    assert breaker.allow(media, CARD, now=later)
    breaker.put_back(media, CARD)
    assert breaker.allow(media, CARD, now=later)
    # Nor does one whose worker was killed keep the card for ever.
    assert breaker.allow(media, CARD, now=later + 3600)


def test_of_many_that_wait_one_tries(media: MediaSettings) -> None:
    opened(media, 1000.0)
    later = 1001.0 + breaker.FIRST_SECONDS
    allowed: list[bool] = []
    threads = [threading.Thread(target=lambda: allowed.append(breaker.allow(media, CARD, now=later))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(allowed) == [False] * 7 + [True]


def test_a_damaged_file_is_a_card_nothing_is_known_of(media: MediaSettings) -> None:
    opened(media, 1000.0)
    (path,) = (media.scratch or Path()).rglob("*.breaker")
    path.write_text('{"faults": 3, "opened"')
    assert breaker.state(media, CARD) == breaker.State()
    assert breaker.allow(media, CARD)
    assert not breaker.failed(media, CARD, "x")
