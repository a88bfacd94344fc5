"""Metrics of encoders and the devices they run on."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

FALLBACKS: Final = Counter(
    "afterlive_encoder_fallbacks_total",
    "Times an encoder was not had as wanted, by what was taken instead",
    ["encoder", "to", "reason"],
)
SESSIONS: Final = Gauge(
    "afterlive_encoder_sessions", "Encoders running on a device now, of all this node's workers", ["device"]
)
SESSION_LIMIT: Final = Gauge(
    "afterlive_encoder_session_limit", "Encoders that may run on a device at a time", ["device"]
)
USABLE: Final = Gauge(
    "afterlive_encoder_usable", "Whether an encoder works on a device (1) or not (0)", ["device", "encoder"]
)
BREAKER_OPEN: Final = Gauge(
    "afterlive_encoder_breaker_open", "Whether a device is left alone after faults (1) or not (0)", ["device"]
)
