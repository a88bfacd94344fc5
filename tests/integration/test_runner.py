"""Running ffmpeg: its progress, its end, and that nothing of it outlives the work."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from control.bus.messages import Progress
from control.bus.work import Work
from control.errors import Cancelled, DeadlineExceeded, EncoderFailed
from control.settings import MediaSettings
from media_worker.ffmpeg import ffmpeg_path
from media_worker.giving_way import give_way
from media_worker.idle_group import IdleGroup, own_group
from media_worker.runner import run
from tests.services import children

FFMPEG = ffmpeg_path(MediaSettings())

QUIET = ("-hide_banner", "-nostdin", "-loglevel", "level+error", "-progress", "pipe:1", "-stats_period", "0.1")


def encode(frames: int, *more: str) -> list[str]:
    source = ("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30")
    return [FFMPEG, *QUIET, *source, "-frames:v", str(frames), "-c:v", "libx264", *more, "-f", "null", "-"]


def endless() -> list[str]:
    """As fast as the clock, for an hour."""
    return [FFMPEG, *QUIET, "-re", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=30", "-t", "3600", "-f", "null", "-"]


def test_progress_rises_and_arrives() -> None:
    reports: list[Progress] = []
    seconds = run(encode(300), Work("x", 60, reporter=reports.append, report_every_seconds=0), total_frames=300)
    done = [report.done_frames for report in reports]
    assert len(done) > 2
    assert done == sorted(done)
    assert done[0] < done[-1] == 300
    assert {report.total_frames for report in reports} == {300}
    assert all(report.fps >= 0 for report in reports)
    assert max(report.fps for report in reports) > 0
    assert seconds > 0
    assert children() == []


def test_progress_of_sound_is_the_part_of_its_length() -> None:
    reports: list[Progress] = []
    sound = ("-re", "-f", "lavfi", "-i", "sine=duration=1")
    command = [FFMPEG, *QUIET, *sound, "-c:a", "aac", "-f", "null", "-"]
    work = Work("x", 60, reporter=reports.append, report_every_seconds=0)
    run(command, work, total_frames=100, total_seconds=1.0)
    done = [report.done_frames for report in reports]
    assert done == sorted(done)
    assert any(0 < each < 100 for each in done)
    assert done[-1] == 100


def test_more_frames_than_announced_are_not_more_than_all() -> None:
    reports: list[Progress] = []
    run(encode(100), Work("x", 60, reporter=reports.append, report_every_seconds=0), total_frames=50)
    assert {report.done_frames for report in reports} <= set(range(51))


def test_cancel_ends_it_at_once() -> None:
    cancelled = threading.Event()
    found: list[psutil.Process] = []
    at = [0.0]

    def cancel() -> None:
        time.sleep(0.5)
        found.extend(children())
        at[0] = time.monotonic()
        cancelled.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        run(endless(), Work("x", 60, cancelled=cancelled), total_frames=1)
    took = time.monotonic() - at[0]
    thread.join()
    assert took < 5
    assert len(found) == 1
    assert not found[0].is_running()
    assert children() == []


def test_the_deadline_ends_it() -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        run(endless(), Work("x", 0.5), total_frames=1)
    assert 0.5 <= time.monotonic() - started < 10
    assert children() == []


def test_an_error_of_the_reporter_ends_it() -> None:
    def fail(_: Progress) -> None:
        raise RuntimeError("the bus is gone")

    with pytest.raises(RuntimeError, match="the bus is gone"):
        run(endless(), Work("x", 60, reporter=fail), total_frames=1)
    assert children() == []


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ([FFMPEG, *QUIET, "-i", "missing.mp4", "-f", "null", "-"], "No such file"),
        (encode(10, "-profile:v", "nonsense"), "[libx264] [error] Error setting profile nonsense."),
        (encode(10, "-c:v", "nonsense"), "Unknown encoder 'nonsense'"),
        (encode(10, "-f", "mp4", "-movflags", "empty_moov", "-y", "/dev/full"), "No space left on device"),
        # Its last words are of each thread that ended because of the cause.
        (encode(10, "-vf", "zscale=transfer=smpte2084:transferin=unspecified"), "no path between colorspaces"),
    ],
)
def test_the_reason_is_one_line_that_says_the_cause(command: list[str], reason: str) -> None:
    with pytest.raises(EncoderFailed) as error:
        run(command, Work("the chunk", 60), total_frames=10)
    detail = error.value.detail
    assert detail.startswith("ffmpeg failed on the chunk: ")
    assert reason in detail
    assert "\n" not in detail
    assert len(detail) < 400
    assert children() == []


def test_a_signal_and_a_mute_end_are_told() -> None:
    with pytest.raises(EncoderFailed, match="signal 9"):
        run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], Work("x", 60), total_frames=1)
    with pytest.raises(EncoderFailed, match=r"it said nothing \(exit status 3\)"):
        run([sys.executable, "-c", "raise SystemExit(3)"], Work("x", 60), total_frames=1)


def test_much_on_stderr_neither_blocks_nor_fills_memory() -> None:
    chatter = "import sys\nfor n in range(40000): print('x' * 200, file=sys.stderr)\nsys.exit('the end')"
    with pytest.raises(EncoderFailed) as error:
        run([sys.executable, "-c", chatter], Work("x", 60), total_frames=1)
    assert "the end" in error.value.detail
    assert len(error.value.detail) < 100


def test_a_process_that_closes_its_pipes_is_still_waited_for() -> None:
    """And the deadline holds for it."""
    mute = "import os, time; os.close(1); os.close(2); time.sleep(30)"
    with pytest.raises(DeadlineExceeded):
        run([sys.executable, "-c", mute], Work("x", 0.5), total_frames=1)
    assert children() == []


def test_what_it_started_itself_goes_too() -> None:
    """A wrapper that starts the real ffmpeg: the whole group is killed."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(30)'])"
    before = {process.pid for process in psutil.process_iter()}
    with pytest.raises(DeadlineExceeded):
        run([sys.executable, "-c", script], Work("x", 1.0), total_frames=1)
    deadline = time.monotonic() + 2
    while left := [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if process.pid not in before and "time.sleep(30)" in " ".join(process.info["cmdline"] or ())
    ]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_it_takes_only_what_others_leave() -> None:
    if not hasattr(os, "SCHED_IDLE"):
        pytest.skip("no such scheduling class here")
    seen: list[int] = []

    def look(_: Progress) -> None:
        seen.extend(os.sched_getscheduler(process.pid) for process in children() if process.is_running())

    run(encode(300), Work("x", 60, reporter=look, report_every_seconds=0), total_frames=300)
    assert os.SCHED_IDLE in seen


def slice_of(thread: int) -> int:
    """Nanoseconds it runs before others that are like it; 0 of one that has ended."""
    attributes = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]  # sched_getattr
    if ctypes.CDLL(None).syscall(number, thread, attributes, 48, 0):
        return 0
    return int(struct.unpack("IIQiIQQQ", attributes.raw)[5])


def idle_thread(found: list[int]) -> None:
    give_way()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found.append(slice_of(child.pid))
        child.communicate(b"\n")


@pytest.mark.skipif(
    not hasattr(os, "SCHED_IDLE") or tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (6, 12),
    reason="this kernel's slices are its own affair",
)
def test_encoders_take_turns_seldom() -> None:
    """Threads as the process itself; who somebody waits for takes turns as all do."""
    seen: set[int] = set()

    def look(_: Progress) -> None:
        for process in children():
            with contextlib.suppress(psutil.NoSuchProcess):
                seen.update(slice_of(thread.id) for thread in process.threads())

    run(encode(300), Work("x", 60, reporter=look, report_every_seconds=0), total_frames=300)
    assert seen - {0} == {25_000_000}
    # What a thread starts that gives way itself has them from it: nobody but root may give them to what is idle.
    found: list[int] = []
    thread = threading.Thread(target=idle_thread, args=(found,))
    thread.start()
    thread.join()
    assert found == [25_000_000]
    seen.clear()
    run(encode(300), Work("x", 60, reporter=look, report_every_seconds=0), total_frames=300, gives_way=False)
    assert 0 < max(seen) < 5_000_000


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the encoders' control group; other tests' workers share the usual one."""
    own = own_group()
    if own is None or not own.may_have_others:
        pytest.skip("no control group can be made here")
    name, group = f"afterlive-test-{os.getpid()}", IdleGroup()
    monkeypatch.setattr("media_worker.idle_group.NAME", name)
    monkeypatch.setattr("media_worker.runner.IDLE_GROUP", group)
    group.open(own)
    yield own.folder / name
    group.close()
    assert not (own.folder / name).exists()


def groups_of(process: psutil.Process) -> str:
    return Path(f"/proc/{process.pid}/cgroup").read_text()


def test_it_is_in_a_control_group_that_gives_way_to_all_others(encoders: Path) -> None:
    seen: set[str] = set()

    def look(_: Progress) -> None:
        seen.update(groups_of(process) for process in children() if process.is_running())

    encoders.rmdir()  # as another worker does when it ends
    run(encode(300), Work("x", 60, reporter=look, report_every_seconds=0), total_frames=300)
    assert any(f"/{encoders.name}\n" in groups for groups in seen)
    assert (encoders / "cpu.idle").read_text() == "1\n"
    seen.clear()
    run(encode(300), Work("x", 60, reporter=look, report_every_seconds=0), total_frames=300, gives_way=False)
    assert not any(f"/{encoders.name}\n" in groups for groups in seen)


def test_what_is_killed_gives_way_no_more(encoders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine it would be many seconds before it has ended."""
    seen: list[tuple[set[int], bool]] = []
    kill = os.killpg

    def look(group: int, number: int) -> None:
        process = psutil.Process(group)
        policies = {os.sched_getscheduler(thread.id) for thread in process.threads()}
        seen.append((policies, f"/{encoders.name}\n" in groups_of(process)))
        kill(group, number)

    monkeypatch.setattr(os, "killpg", look)
    with pytest.raises(DeadlineExceeded):
        run(encode(100_000), Work("x", 1.5), total_frames=1)
    ((policies, in_group),) = seen
    assert not in_group
    if os.geteuid() == 0:  # nobody else may leave idle scheduling
        assert policies == {os.SCHED_OTHER}


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here")
def test_ffmpeg_goes_where_its_worker_is_killed_outright(tmp_path: Path) -> None:
    code = (
        "from control.bus.work import Work\n"
        "from media_worker.runner import run\n"
        f"run({endless()!r}, Work('x', 60), total_frames=1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as worker:
        parent = psutil.Process(worker.pid)
        deadline = time.monotonic() + 20
        while not (found := [child for child in parent.children() if "ffmpeg" in child.name()]):
            assert time.monotonic() < deadline
            assert worker.poll() is None
            time.sleep(0.05)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    gone, alive = psutil.wait_procs(found, timeout=30)  # a busy machine leaves it little to end with
    assert alive == []
    assert len(gone) == 1
