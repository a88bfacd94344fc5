"""What is known of a failure, on its way to `failed_tasks`. Part of the message, so that a node without a ledger can
tell, and JSON like the rest."""

from __future__ import annotations

import time
import traceback
import uuid
from typing import Any, Final, Literal

from control.bus.messages import Message
from control.bus.names import TaskSpec
from control.bus.publish import scrub
from control.errors import AfterliveError

_LONGEST_TRACEBACK: Final = 20_000
Reason = Literal["failed", "expired", "refused", "poison", "unroutable"]


class Failure(Message):
    """Why a task is in `failed_tasks`. The broker itself sends `poison` and `unroutable` ones, with nothing of this."""

    id: str
    reason: Reason
    code: str
    detail: str
    exception: str | None = None
    """Its kind."""
    traceback: str | None = None
    attempts: int = 1
    failed_ms: int
    """When, in Unix milliseconds."""

    @classmethod
    def of(
        cls, reason: Reason, spec: TaskSpec, payload: dict[str, Any], error: BaseException, attempts: int
    ) -> Failure:
        """Of an error, without the payload's secrets."""
        lines = "".join(traceback.format_exception(error))
        known = isinstance(error, AfterliveError)
        return cls(
            id=uuid.uuid4().hex,
            reason=reason,
            code=error.code if isinstance(error, AfterliveError) else AfterliveError.code,
            detail=scrub(spec, payload, str(error) or type(error).__name__),
            exception=f"{type(error).__module__}.{type(error).__qualname__}",
            # Of an error that says all there is to say, where it was raised is of no use.
            traceback=None if known and reason != "failed" else scrub(spec, payload, lines)[-_LONGEST_TRACEBACK:],
            attempts=attempts,
            failed_ms=round(time.time() * 1000),
        )
