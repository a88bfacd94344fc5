"""Metrics of the bus, the shop and replays (prometheus-client). Those of the media tier are in `media_worker.metrics`,
those of the object store in `control.storage.metered`."""

from __future__ import annotations

import socket
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300, 1800)
_RUN_BUCKETS: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)

QUEUE_LATENCY = Histogram(
    "afterlive_queue_latency_seconds",
    "From publishing (or the time it was due) to the start of the task",
    ["queue", "task"],
    buckets=_LATENCY_BUCKETS,
)
RUN_TIME = Histogram("afterlive_task_seconds", "Run time of a task", ["task", "outcome"], buckets=_RUN_BUCKETS)
RETRIES = Counter("afterlive_task_retries_total", "Tasks that will be tried again", ["task", "code"])
FAILURES = Counter("afterlive_task_failures_total", "Tasks that failed finally", ["task", "code"])
IN_FLIGHT = Gauge("afterlive_tasks_in_flight", "Tasks running now", ["task"])
OUTBOX_SENT = Counter("afterlive_outbox_sent_total", "Messages the relay put on the bus")
OUTBOX_ERRORS = Counter("afterlive_outbox_errors_total", "Times the relay could not reach the ledger or the broker")
OUTBOX_DEPTH = Gauge("afterlive_outbox_depth", "Messages that wait to be put on the bus")
OUTBOX_AGE = Gauge("afterlive_outbox_age_seconds", "How long the oldest of them is due")
PUBLISH_SECONDS = Histogram(
    "afterlive_publish_seconds", "From sending a message to the broker's confirmation", buckets=_LATENCY_BUCKETS
)
EXPIRED = Counter("afterlive_task_expired_total", "Tasks dropped because they came after their deadline", ["task"])
DUPLICATES = Counter("afterlive_task_duplicates_total", "Messages whose effect was there already", ["task"])
FAILED_TASKS = Gauge("afterlive_failed_tasks", "Finally failed tasks nobody has seen to", ["task"])
NOTICES = Counter(
    "afterlive_notices_total", "Mails and other messages to people by how they ended", ["channel", "template", "state"]
)
WEBHOOKS = Counter(
    "afterlive_webhook_attempts_total", "Attempts to deliver a webhook by what came of them", ["outcome"]
)
WEBHOOKS_DISABLED = Counter("afterlive_webhook_endpoints_disabled_total", "Webhook endpoints disabled as they failed")
ORDERS = Counter("afterlive_orders_total", "Orders by the state they came into", ["state"])
PAYMENTS = Counter("afterlive_payments_total", "Payments by the state they came into", ["state"])
PAYMENT_REPORTS = Counter(
    "afterlive_payment_reports_total", "What gateways said of trades, and what came of it", ["gateway", "by", "outcome"]
)
PAYMENT_NOTICES = Counter(
    "afterlive_payment_notices_total", "Gateways' notices: stored, known, forged or unreadable", ["gateway", "result"]
)
GATEWAY_SECONDS = Histogram(
    "afterlive_gateway_seconds", "Questions to a payment gateway", ["question", "result"], buckets=_RUN_BUCKETS
)
REPINNED = Counter(
    "afterlive_rungs_repinned_total",
    "Rungs that another encoder took over: nobody had theirs any more (lost), a node could not have it (unavailable),"
    " devices made them differently (mixed), or a chunk failed (failed)",
    ["encoder", "to", "reason"],
)
NODES = Gauge("afterlive_nodes", "Media workers that are known", ["state"])
NODES_WITH = Gauge("afterlive_nodes_with_encoder", "Media workers that are alive and have it", ["encoder"])
WORKER_SLOTS = Gauge("afterlive_worker_slots", "Tasks this worker can run at a time", ["tier"])
PARTS = Gauge("afterlive_parts", "Parts of replays that are under way, by what becomes of them now", ["kind", "state"])
PARTS_AGE = Gauge("afterlive_parts_waiting_seconds", "How long the part that waits longest is on the bus", ["kind"])
BACKLOG_FRAMES = Gauge("afterlive_backlog_frames", "Frames of recordings that are still to be transcoded")
REPLAYS = Counter("afterlive_replays_total", "Replays by how they ended", ["state"])
for _state in ("completed", "failed", "cancelled"):
    REPLAYS.labels(_state)  # from the start: of a counter that begins with its first event, nobody sees that it grew
REPLAY_SECONDS = Histogram(
    "afterlive_replay_seconds",
    "From a stream's end to the mark",
    ["mark"],
    buckets=(1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600),
)
REPLAY_PACE = Histogram(
    "afterlive_replay_pace_ratio",
    "From a stream's end to its whole replay, over the replay's length: under 1 is faster than it was live",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 5, 10),
)

_node: Final = socket.gethostname()


def node() -> str:
    """What metrics that are told by node call this machine: its host's name, as its report on the bus does."""
    return _node
