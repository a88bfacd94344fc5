"""What the ledger need not know for ever."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from control.ledger import failures, nodes, notices, tasks, webhook_deliveries
from control.ledger.base import now
from control.ledger.engine import Ledger

log = logging.getLogger("afterlive.cleanup")
_TASKS_KEPT: Final = timedelta(days=7)
_UNTOLD_KEPT: Final = timedelta(days=90)  # nothing waits in a queue for that long
_NOTICES_KEPT: Final = timedelta(days=90)
_FAILURES_KEPT: Final = timedelta(days=90)
_WEBHOOKS_KEPT: Final = timedelta(days=30)
_NODES_KEPT: Final = timedelta(days=1)  # a name has the process's number in it: each start is another
# In one transaction. Others write in between; and who is ended half-way has done half, not nothing.
_BATCH: Final = 2000


def forget_tasks(ledger: Ledger, check: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """Remove tasks that ended over a week ago, or began over 90 days ago and never told; and failures that were
    replayed or discarded over 90 days ago; how many of each. Messages to people go after as long, to other systems
    after 30 days. `check` is called in between, and may raise."""
    failed = _all(ledger, failures.forget, now() - _FAILURES_KEPT, check)
    ended = _all(ledger, tasks.forget, now() - _TASKS_KEPT, check)
    ended += _all(ledger, tasks.forget_untold, now() - _UNTOLD_KEPT, check)
    _all(ledger, notices.forget, now() - _NOTICES_KEPT, check)
    _all(ledger, nodes.forget, now() - _NODES_KEPT, check)
    _all(ledger, webhook_deliveries.forget, now() - _WEBHOOKS_KEPT, check)
    log.info("forgot tasks=%d failed_tasks=%d", ended, failed)
    return ended, failed


def _all(
    ledger: Ledger, forget: Callable[[Session, datetime, int], int], before: datetime, check: Callable[[], None]
) -> int:
    total, gone = 0, _BATCH
    while gone == _BATCH:
        check()
        with ledger.write() as session:
            gone = forget(session, before, _BATCH)
        total += gone
    return total
