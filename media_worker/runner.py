"""The only place that starts ffmpeg: progress, deadline, cancel, kill. Nothing it starts outlives it."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import IO, Final

from control.bus.messages import Progress
from control.bus.work import Work
from control.errors import EncoderFailed, EncoderHung
from media_worker.giving_way import give_way, give_way_no_more
from media_worker.idle_group import IDLE_GROUP
from media_worker.pacer import PACER

_POLL_SECONDS: Final = 0.25  # a cancel is heard within it
_TAIL_BYTES: Final = 8192
_LONGEST_REASON: Final = 300
_ADDRESS: Final = re.compile(r" @ 0x[0-9a-f]+")
_ENVIRONMENT: Final = {
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # CUDA numbers cards by their speed otherwise, nvidia-smi never does
    "SVT_LOG": "1",  # of SVT-AV1, errors alone
    # Pictures of a few megabytes come and go with each frame: kept, and in huge pages, they cost the kernel half as
    # much. glibc's alone; others ignore it.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=67108864"
    ":glibc.malloc.trim_threshold=268435456",
}
# What ffmpeg says of each of its threads after one of them has failed; the cause is what came before.
_ECHOES: Final = (
    "Conversion failed",
    "Could not open encoder before EOF",
    "Error opening output file",
    "Error selecting an encoder",
    "Error sending frames to consumers",
    "Error while filtering",
    "Error while opening encoder",
    "Nothing was written into output file",
    "Task finished with error code",
    "Terminating thread with return code",
)


def run(
    command: Sequence[str],
    work: Work,
    *,
    total_frames: int,
    total_seconds: float | None = None,
    on_metadata: Callable[[str, str], None] | None = None,
    hang_seconds: float | None = None,
    gives_way: bool = True,
) -> float:
    """Run ffmpeg to its end; seconds it took.

    Progress goes to `work` as frames of `total_frames`; of a run without pictures, as the part of `total_seconds`
    that is done. `on_metadata` gets (key, value) of what an `ametadata=print` filter writes to stdout. Raises
    EncoderFailed with the end of its stderr (the facts `said` and `status` hold all of it); EncoderHung where for
    `hang_seconds` no frame was made; Cancelled and DeadlineExceeded; all once the process is killed, a fraction of a
    second after the cause. What somebody waits for does not give way to others' work.
    """
    started = time.monotonic()
    progress = _ProgressReader(work, total_frames, total_seconds, on_metadata, hang_seconds)
    with PACER.pacing() if gives_way else contextlib.nullcontext(), _start(command, gives_way) as process:
        try:
            tail = _follow(process, work, progress)
        except BaseException:
            _kill(process)
            raise
    if process.returncode:
        said = _ADDRESS.sub("", tail.decode(errors="replace"))
        raise EncoderFailed(
            key=work.key, reason=_reason(process.returncode, said), said=said, status=process.returncode
        )
    progress.finish()
    return time.monotonic() - started


def _start(command: Sequence[str], gives_way: bool) -> subprocess.Popen[bytes]:
    # Where the worker is killed outright, the kernel takes ffmpeg along.
    prefix = [setpriv, "--pdeathsig", "KILL", "--"] if (setpriv := shutil.which("setpriv")) else []
    process = subprocess.Popen(
        [*prefix, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | _ENVIRONMENT,
        start_new_session=True,  # Ctrl-C on the terminal is the worker's to handle
    )
    if gives_way:
        # Encoding takes only what latency-bound work leaves: payments on the same machine do not feel it. (Without a
        # control group, a kernel that groups tasks by session lets that count within one alone: the doctor tells.)
        give_way(process.pid)
        IDLE_GROUP.join(process.pid)
    return process


def _follow(process: subprocess.Popen[bytes], work: Work, progress: _ProgressReader) -> bytes:
    """Read both pipes until they close; the tail of stderr."""
    tail = b""
    stdout, stderr = _pipe(process.stdout), _pipe(process.stderr)
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        selector.register(stderr, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(_POLL_SECONDS):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is stdout:
                    progress.feed(data)
                else:
                    tail = (tail + data)[-_TAIL_BYTES:]
            work.check()
            progress.check()
    while True:
        try:
            process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            work.check()
            progress.check()
        else:
            return tail


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("the process was started without pipes")
    return pipe


def _kill(process: subprocess.Popen[bytes]) -> None:
    # To end takes a few milliseconds of processor as well, which on a busy machine nobody leaves it for many seconds.
    IDLE_GROUP.leave(process.pid)
    give_way_no_more(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _reason(code: int, tail: str) -> str:
    """One line: the last thing ffmpeg said that is a cause, and how it ended."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    causes = [line for line in lines if not any(echo in line for echo in _ECHOES)]
    said = (causes or lines or ["it said nothing"])[-1][:_LONGEST_REASON]
    ended = f"signal {-code}" if code < 0 else f"exit status {code}"
    return f"{said} ({ended})"


class _ProgressReader:
    """ffmpeg's `-progress` blocks: `key=value` lines, each block ended by `progress=`."""

    def __init__(
        self,
        work: Work,
        total_frames: int,
        total_seconds: float | None,
        on_metadata: Callable[[str, str], None] | None,
        hang_seconds: float | None,
    ) -> None:
        self._work = work
        self._total = total_frames
        self._seconds = total_seconds
        self._on_metadata = on_metadata
        self._rest = b""
        self._frame = 0
        self._mark = (time.monotonic(), 0)
        self._hang_seconds = hang_seconds
        self._moved = (time.monotonic(), 0)

    def check(self) -> None:
        """Raise EncoderHung where no frame was made for too long."""
        moved, frame = self._moved
        now = time.monotonic()
        if self._frame != frame:
            self._moved = (now, self._frame)
        elif self._hang_seconds is not None and now - moved > self._hang_seconds:
            raise EncoderHung(key=self._work.key, reason=f"no frame was made for {self._hang_seconds:.0f} s")

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for raw in lines:
            key, _, value = raw.decode(errors="replace").strip().partition("=")
            if key == "frame" and value.isdigit() and self._seconds is None:
                self._frame = int(value)
            elif key == "out_time_us" and value.isdigit() and self._seconds:
                self._frame = round(int(value) / 1_000_000 / self._seconds * self._total)
            elif key == "progress":
                self._report(min(self._frame, self._total))
            elif key.startswith("lavfi.") and self._on_metadata:
                self._on_metadata(key, value)

    def finish(self) -> None:
        self._report(self._total)

    def _report(self, frame: int) -> None:
        now = time.monotonic()
        then, before = self._mark
        fps = (frame - before) / (now - then) if now > then else 0.0
        self._mark = (now, frame)
        self._work.report(Progress(done_frames=frame, total_frames=self._total, fps=round(max(fps, 0.0), 2)))
