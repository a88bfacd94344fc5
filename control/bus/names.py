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
LOW_NVENC: Final = "low_priority.nvenc"
LOW_VAAPI: Final = "low_priority.vaapi"
GPU_QUEUES: Final = {"nvenc": LOW_NVENC, "vaapi": LOW_VAAPI}
"""Family of encoders → the queue of chunks only nodes that have it may take."""
FAILED: Final = "failed_tasks"
QUEUES: Final = (HIGH, DEFAULT, LOW, LOW_NVENC, LOW_VAAPI)


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
    also: tuple[str, ...] = ()
    """Other queues it goes to where its payload wants what not every worker has (`control.bus.routing`)."""

    @property
    def queues(self) -> tuple[str, ...]:
        """All it may come by; the first is where it goes unless its payload says otherwise."""
        return (self.queue, *self.also)

    @property
    def routing_key(self) -> str:
        """Queue and name, so that the broker can hold a tier's user to the tasks it may send."""
        return routing_key(self.queue, self.name)

    @property
    def routing_keys(self) -> tuple[str, ...]:
        """That of each of its queues."""
        return tuple(routing_key(queue, self.name) for queue in self.queues)


def key_word(queue: str) -> str:
    """The first word of a queue's routing keys. A dot would make two: and what is bound to all keys that start with
    `low_priority` would get what is for `low_priority.nvenc` as well."""
    return queue.replace(".", "-")


def routing_key(queue: str, task: str) -> str:
    return f"{key_word(queue)}.{task}"


_media = Retry(times=3, first_seconds=60)
_quick = Retry(times=5, first_seconds=1, most_seconds=60)
_mail = Retry(times=3, first_seconds=10)

# Media tier. Messages held longer than RabbitMQ's consumer timeout (30 min by default) stop a worker: hence chunks.
PROCESS_STREAM_RECORDING = TaskSpec(
    "media.process_stream_recording", LOW, _media, soft_seconds=600, hard_seconds=660, reports_to_replay=True
)
TRANSCODE_CHUNK = TaskSpec(
    "media.transcode_chunk",
    LOW,
    _media,
    soft_seconds=600,
    hard_seconds=660,
    reports_to_replay=True,
    also=tuple(GPU_QUEUES.values()),
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
PROBED: Final = "probed"
"""Told as a part that is done: what a recording is, while it is still looked at how many bits it needs."""
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
# A media node tells what it can, every half minute: one that is late is of no use, and the next one comes.
NODE_REPORT = TaskSpec(
    "pipelines.node_report",
    DEFAULT,
    Retry(times=0),
    soft_seconds=10,
    hard_seconds=15,
    key="node",
    deadline_seconds=60,
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
SEND_ADMIN_NOTIFICATION = TaskSpec("notify.send_admin_notification", DEFAULT, _mail, soft_seconds=240, hard_seconds=300)

# Orders and payments. What follows from a change of an order is decided where buyers wait for it.
PROCESS_ORDER = TaskSpec("notify.process_order", HIGH, _quick, soft_seconds=240, hard_seconds=300, key="order_id")
UPDATE_INVENTORY = TaskSpec("notify.update_inventory", HIGH, _quick, soft_seconds=240, hard_seconds=300, key="order_id")
ADVANCE_ORDER = TaskSpec("pipelines.advance_order", HIGH, _quick, soft_seconds=60, hard_seconds=90, key="order_id")
CHECK_ABANDONED_CARTS = TaskSpec(
    "notify.check_abandoned_carts", DEFAULT, Retry(times=3), soft_seconds=240, hard_seconds=300
)
PROCESS_PAYMENT_WEBHOOK = TaskSpec(
    "notify.process_payment_webhook", HIGH, _quick, soft_seconds=240, hard_seconds=300, key="trade_no"
)
# Not tried again blindly: each try asks the gateway first what became of the one before.
RETRY_FAILED_PAYMENT = TaskSpec(
    "notify.retry_failed_payment",
    HIGH,
    Retry(times=5, first_seconds=5, most_seconds=300),
    soft_seconds=240,
    hard_seconds=300,
    key="payment_id",
)
REFUND_PAYMENT = TaskSpec(
    "notify.refund_payment",
    HIGH,
    Retry(times=5, first_seconds=5, most_seconds=300),
    soft_seconds=240,
    hard_seconds=300,
    key="payment_id",
)
RECONCILE_PAYMENTS = TaskSpec("notify.reconcile_payments", DEFAULT, Retry(times=3), soft_seconds=240, hard_seconds=300)

# Messages to people: the payload names a row of the ledger, and nobody's address is on the bus.
SEND_OTP_SMS = TaskSpec(
    "notify.send_otp_sms",
    HIGH,
    Retry(times=2, first_seconds=1, most_seconds=5),
    soft_seconds=30,
    hard_seconds=45,
    secret=frozenset({"sealed"}),
    key="otp_id",
    deadline_seconds=300,
)
SEND_ORDER_STATUS_SMS = TaskSpec(
    "notify.send_order_status_sms",
    DEFAULT,
    Retry(times=2, first_seconds=10),
    soft_seconds=60,
    hard_seconds=90,
    key="about",
)


def _mail_task(name: str) -> TaskSpec:
    return TaskSpec(f"notify.{name}", DEFAULT, _mail, soft_seconds=240, hard_seconds=300, key="about")


SEND_WELCOME_EMAIL = _mail_task("send_welcome_email")
SEND_ORDER_CONFIRMATION_EMAIL = _mail_task("send_order_confirmation_email")
SEND_PAYMENT_CONFIRMATION_EMAIL = _mail_task("send_payment_confirmation_email")
SEND_REPLAY_READY_EMAIL = _mail_task("send_replay_ready_email")
SEND_ABANDONED_CART_EMAIL = _mail_task("send_abandoned_cart_email")
SEND_DAILY_REPORT_EMAIL = _mail_task("send_daily_report_email")
SEND_BULK_EMAIL = TaskSpec("notify.send_bulk_email", DEFAULT, _mail, soft_seconds=240, hard_seconds=300, key="bulk_id")

# To other systems: tried for a day.
DELIVER_WEBHOOK = TaskSpec(
    "notify.deliver_webhook", DEFAULT, Retry(times=3), soft_seconds=30, hard_seconds=45, key="delivery_id"
)

# What was watched and sold.
_analytics = Retry(times=3, first_seconds=10)
AGGREGATE_STREAM_ANALYTICS = TaskSpec(
    "notify.aggregate_stream_analytics", DEFAULT, _analytics, soft_seconds=1500, hard_seconds=1740, key="stream_id"
)
GENERATE_DAILY_REPORT = TaskSpec(
    "notify.generate_daily_report", DEFAULT, _analytics, soft_seconds=1500, hard_seconds=1740, key="day"
)
CLEANUP_OLD_STREAMS = TaskSpec(
    "pipelines.cleanup_old_streams", DEFAULT, Retry(times=3, first_seconds=60), soft_seconds=1500, hard_seconds=1740
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
        NODE_REPORT,
        PUBLISH_REPLAY,
        RECONCILE,
        FORGET_TASKS,
        SEND_ADMIN_NOTIFICATION,
        PROCESS_ORDER,
        UPDATE_INVENTORY,
        ADVANCE_ORDER,
        CHECK_ABANDONED_CARTS,
        PROCESS_PAYMENT_WEBHOOK,
        RETRY_FAILED_PAYMENT,
        REFUND_PAYMENT,
        RECONCILE_PAYMENTS,
        SEND_OTP_SMS,
        SEND_ORDER_STATUS_SMS,
        SEND_WELCOME_EMAIL,
        SEND_ORDER_CONFIRMATION_EMAIL,
        SEND_PAYMENT_CONFIRMATION_EMAIL,
        SEND_REPLAY_READY_EMAIL,
        SEND_ABANDONED_CART_EMAIL,
        SEND_DAILY_REPORT_EMAIL,
        SEND_BULK_EMAIL,
        DELIVER_WEBHOOK,
        AGGREGATE_STREAM_ANALYTICS,
        GENERATE_DAILY_REPORT,
        CLEANUP_OLD_STREAMS,
    )
}


def business_key(spec: TaskSpec, payload: dict[str, Any]) -> str | None:
    """What people call what the task is about."""
    job = payload.get("job")
    value = job.get("replay_id") if isinstance(job, dict) else payload.get(spec.key)
    return str(value) if value is not None else None
