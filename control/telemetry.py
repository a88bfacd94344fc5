"""Metrics of the bus and of transcoding (prometheus-client)."""

from __future__ import annotations

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
    " or devices made them differently (mixed)",
    ["encoder", "to", "reason"],
)
NODES = Gauge("afterlive_nodes", "Media workers that are known", ["state"])
NODES_WITH = Gauge("afterlive_nodes_with_encoder", "Media workers that are alive and have it", ["encoder"])
TRANSCODED_FRAMES = Counter("afterlive_transcoded_frames_total", "Frames of recordings transcoded", ["encoder"])
TRANSCODE_FPS = Histogram(
    "afterlive_transcode_fps",
    "Frames of the recording a chunk was transcoded at per second",
    ["encoder"],
    buckets=(1, 5, 10, 20, 30, 45, 60, 90, 120, 180, 240, 480, 960),
)
REPLAYS = Counter("afterlive_replays_total", "Replays by how they ended", ["state"])
REPLAY_SECONDS = Histogram(
    "afterlive_replay_seconds",
    "From a stream's end to the mark",
    ["mark"],
    buckets=(1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600),
)
