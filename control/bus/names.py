"""The catalogue: every task's name, queue, retry policy, limits and secrets. A table, no logic.

Nobody imports a worker: work is addressed by these names. A media task answers by name too: its result goes to
`done`, its final failure to `failed`, and its progress to `progress`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

HIGH: Final = "high_priority"
DEFAULT: Final = "default"
LOW: Final = "low_priority"
FAILED: Final = "failed_tasks"
QUEUES: Final = (HIGH, DEFAULT, LOW)


@dataclass(frozen=True)
class Retry:
    """`times` tries after the first, `first_seconds * 2**n` apart (full jitter), at most `most_seconds`."""

    times: int
    first_seconds: float = 1.0
    most_seconds: float = 600.0


@dataclass(frozen=True)
class TaskSpec:
    """One row of the catalogue."""

    name: str
    queue: str
    retry: Retry
    soft_seconds: float
    """After this long the task must give up by itself."""
    hard_seconds: float
    """After this long it is ended."""
    idempotent: bool = True
    secret: frozenset[str] = field(default_factory=frozenset)
    """Arguments that no log, result or dead letter may show."""
    reports_to_replay: bool = False
    """A part of a replay: result, final failure and progress go to `pipelines.part_*`."""
    key: str = ""
    """The argument that is the task's business key, by which people ask for it; a job's is its `replay_id`."""
    deadline_seconds: float | None = None
    """How long after the fact it is of any use; later it is dropped and counted, never done."""
    courtesy: bool = False
    """Nobody misses one that is lost: it is tried once, and no failure of it is reviewed."""

    @property
    def routing_key(self) -> str:
        """Queue and name, so that the broker can hold a tier's user to the tasks it may send."""
        return f"{self.queue}.{self.name}"


_media = Retry(times=3, first_seconds=60)
_quick = Retry(times=5, first_seconds=1, most_seconds=60)

# Media tier. Messages held longer than RabbitMQ's consumer timeout (30 min by default) stop a worker: hence chunks.
PROCESS_STREAM_RECORDING = TaskSpec(
    "media.process_stream_recording", LOW, _media, soft_seconds=600, hard_seconds=660, reports_to_replay=True
)
TRANSCODE_CHUNK = TaskSpec(
    "media.transcode_chunk", LOW, _media, soft_seconds=600, hard_seconds=660, reports_to_replay=True
)
ENCODE_AUDIO = TaskSpec("media.encode_audio", LOW, _media, soft_seconds=1500, hard_seconds=1560, reports_to_replay=True)
GENERATE_STREAM_THUMBNAIL = TaskSpec(
    "media.generate_stream_thumbnail",
    LOW,
    _media,
    soft_seconds=1500,
    hard_seconds=1560,
    reports_to_replay=True,
)

# What happens after what.
HANDLE_FACT = TaskSpec("pipelines.handle_fact", DEFAULT, _quick, soft_seconds=60, hard_seconds=90)
PART_DONE = TaskSpec("pipelines.part_done", DEFAULT, _quick, soft_seconds=60, hard_seconds=90, key="replay_id")
PART_FAILED = TaskSpec("pipelines.part_failed", DEFAULT, _quick, soft_seconds=60, hard_seconds=90, key="replay_id")
PART_PROGRESS = TaskSpec(
    "pipelines.part_progress",
    DEFAULT,
    Retry(times=0),
    soft_seconds=10,
    hard_seconds=15,
    key="replay_id",
    deadline_seconds=15,
    courtesy=True,
)
PUBLISH_REPLAY = TaskSpec(
    "pipelines.publish_replay",
    DEFAULT,
    Retry(times=20, most_seconds=30),
    soft_seconds=120,
    hard_seconds=150,
    key="replay_id",
)
RECONCILE = TaskSpec("pipelines.reconcile", DEFAULT, Retry(times=0), soft_seconds=120, hard_seconds=150)
# Not on low_priority: the nodes that work there have no ledger.
FORGET_TASKS = TaskSpec(
    "pipelines.forget_tasks", DEFAULT, Retry(times=3, first_seconds=60), soft_seconds=1500, hard_seconds=1560
)

# Of the bus itself.
SEND_ADMIN_NOTIFICATION = TaskSpec(
    "notify.send_admin_notification", DEFAULT, Retry(times=3, first_seconds=10), soft_seconds=240, hard_seconds=300
)

CATALOGUE: Final[dict[str, TaskSpec]] = {
    spec.name: spec
    for spec in (
        PROCESS_STREAM_RECORDING,
        TRANSCODE_CHUNK,
        ENCODE_AUDIO,
        GENERATE_STREAM_THUMBNAIL,
        HANDLE_FACT,
        PART_DONE,
        PART_FAILED,
        PART_PROGRESS,
        PUBLISH_REPLAY,
        RECONCILE,
        FORGET_TASKS,
        SEND_ADMIN_NOTIFICATION,
    )
}


def business_key(spec: TaskSpec, payload: dict[str, Any]) -> str | None:
    """What people call what the task is about."""
    job = payload.get("job")
    value = job.get("replay_id") if isinstance(job, dict) else payload.get(spec.key)
    return str(value) if value is not None else None
