"""The ledger is the truth: what it says is unfinished, and nobody seems to work on, is sent again."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from control.bus import names
from control.ledger import analytics, bulks, notices, order_upkeep, otp, outbox, parts, replays, webhook_deliveries
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.otp_vault import vault_of
from control.settings import MediaSettings, current
from pipelines import replan
from pipelines import replay as flow
from pipelines.jobs import job_of

log = logging.getLogger("afterlive.reconcile")
# A running part reports every few seconds; a queued one does not, so queues are given time.
_SILENT: Final = timedelta(minutes=15)
_STUCK: Final = timedelta(minutes=2)


def reconcile(ledger: Ledger, settings: MediaSettings, *, bus_is_empty: bool = False) -> int:
    """Send again what is lost; how many parts. `bus_is_empty`: an in-process broker has just started, and nothing
    the ledger believes to be on the bus is there."""
    with ledger.write() as session:
        for replay in replays.left_behind(session, now() if bus_is_empty else now() - _STUCK):
            flow.clean_up(session, replay)
        unfinished = replays.unfinished(session)
    with ledger.write() as session:
        analytics.recount_lost(session, bus_is_empty=bus_is_empty)
    with ledger.write() as session:
        webhook_deliveries.send_lost(session, bus_is_empty=bus_is_empty)
    with ledger.write() as session:
        order_upkeep.send_lost(session, bus_is_empty=bus_is_empty)
    with ledger.write() as session:
        notices.send_lost(session, bus_is_empty=bus_is_empty)
        bulks.send_lost(session, bus_is_empty=bus_is_empty)
    otps = current().otp
    if vault := vault_of(otps.secret):
        with ledger.write() as session:
            otp.renew_lost(session, vault, otps, bus_is_empty=bus_is_empty)
    sent = 0
    for replay_id in unfinished:
        try:
            sent += _reconcile(ledger, replay_id, settings, bus_is_empty)
        except Exception:
            log.exception("replay=%s cannot go on; the others do", replay_id)
    return sent


def _reconcile(ledger: Ledger, replay_id: str, settings: MediaSettings, bus_is_empty: bool) -> int:
    with ledger.write() as session:
        replay = replays.lock(session, replay_id)
        if replay.state not in replays.ACTIVE:
            return 0
        if bus_is_empty:
            replays.revoke_publishing(session, replay_id)
        if replay.state == "waiting":
            # Its outbox row may be gone, sent to a bus that lost it.
            if bus_is_empty or replay.updated_at < now() - _STUCK:
                flow.start(session, replay_id, replay.run, settings)
            return 0
        lost = parts.silent_since(session, replay_id, now() if bus_is_empty else now() - _SILENT)
        for part in lost:
            if parts.mark_sent(session, part):
                outbox.add(session, *job_of(replay, part))
        flow.send_next(session, replay, settings)
        replan.suspect(session, replay, settings)
        if replay.state == "transcoding":
            outbox.add(session, names.PUBLISH_REPLAY, {"replay_id": replay_id, "run": replay.run})
        if lost:
            log.info("replay=%s parts_sent_again=%d", replay_id, len(lost))
        return len(lost)
