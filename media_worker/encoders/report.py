"""What this node can do, for the heartbeat, the doctor and the planner (entry point `afterlive.capabilities`)."""

from __future__ import annotations

import logging
import platform
import time
from datetime import UTC, datetime
from functools import partial

from control.bus.messages import Capability, NodeReport
from control.settings import MediaSettings, Settings
from media_worker.encoder_metrics import BREAKER_OPEN, SESSION_LIMIT, SESSIONS, USABLE
from media_worker.encoders import breaker, sessions
from media_worker.encoders.devices import gpus
from media_worker.encoders.probing import Probed, ffmpeg_version, find_out, possible
from media_worker.encoders.table import Encoder
from media_worker.encoders.tiers import Way

log = logging.getLogger("afterlive.encoders")
_told = ""


def report(settings: Settings, *, fresh: bool = False) -> NodeReport:
    """Seconds the first time, as everything is tried; then what was found is remembered (`fresh` tries anew), and the
    state of the breakers is looked up. Raises ConfigurationError."""
    media = settings.media
    ways = possible(media)
    capabilities = tuple(_capability(media, way, row, find_out(media, way, row, fresh=fresh)) for way, row in ways)
    made = NodeReport(
        node=platform.node(),
        at=datetime.now(UTC),
        ffmpeg=ffmpeg_version(media),
        capabilities=capabilities,
        refuses_cpu=media.refuse_cpu,
    )
    _measure(media, made)
    return made


def idle_gpus(report: NodeReport) -> list[Capability]:
    """The ways of GPUs that are here, where none of them works: such a node encodes on its CPU, or refuses to."""
    on_gpus = [each for each in report.capabilities if each.device != "cpu"]
    return [] if any(each.usable for each in on_gpus) else on_gpus


def _capability(settings: MediaSettings, way: Way, row: Encoder, probed: Probed) -> Capability:
    device = way.device
    usable, reason = probed.usable, probed.reason
    if usable and breaker.is_open(settings, device.name):
        state = breaker.state(settings, device.name)
        left = max(0.0, state.until - time.time())
        usable, reason = False, f"left alone for {left:.0f} s more after {state.faults} faults: {state.reason}"
    return Capability(
        device=device.name,
        encoder=row.name,
        codec=row.codec,
        tier=way.tier.name,
        bit_depths=probed.bit_depths,
        min_width=row.min_width,
        min_height=row.min_height,
        max_width=row.max_side,
        max_height=row.max_side,
        sessions=None if device.kind == "cpu" else sessions.limit(settings),
        usable=usable,
        reason=reason,
    )


def _measure(settings: MediaSettings, made: NodeReport) -> None:
    for device in gpus(settings):
        SESSION_LIMIT.labels(device.name).set(sessions.limit(settings))
        # Asked for when it is scraped: other processes take and give back too.
        SESSIONS.labels(device.name).set_function(partial(sessions.used, settings, device.name))
        BREAKER_OPEN.labels(device.name).set_function(partial(breaker.is_open, settings, device.name))
    works: dict[tuple[str, str], bool] = {}
    for each in made.capabilities:
        name = (each.device, each.encoder)
        works[name] = works.get(name, False) or each.usable
    for labels, usable in works.items():
        USABLE.labels(*labels).set(usable)
    _tell(settings, idle_gpus(made))


def _tell(settings: MediaSettings, dead: list[Capability]) -> None:
    """Loudly, each time it is another reason: nobody would notice otherwise that a node is many times slower."""
    global _told
    reasons = "; ".join(dict.fromkeys(f"{each.device}: {each.reason}" for each in dead))
    if reasons and reasons != _told:
        then = "refuses to encode" if settings.refuse_cpu else "encodes on its CPU, many times slower"
        log.error("this node has a GPU that does not work, and %s: %s", then, reasons)
    _told = reasons
