"""One attempt to deliver a webhook: signed (Standard Webhooks), sent, and what the receiver said.

No word of the URL or the answer's body in any log or error: either may hold what is nobody's business.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

import httpcore
from standardwebhooks import Webhook

from control.errors import ConfigurationError, WebhookUrlRefused
from control.ledger.base import now
from control.ledger.webhook_attempts import Attempt, Outcome
from control.ledger.webhook_urls import check_url
from control.settings import WebhookSettings
from notify_worker.webhook_network import Guarded, LookUp, look_up

_ANSWER_BYTES: Final = 4096
_FAULTS: Final = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, WebhookUrlRefused)


def send(attempt: Attempt, settings: WebhookSettings, *, look_up: LookUp = look_up) -> Outcome:
    """Make the attempt. Whatever the receiver does is an Outcome; raises ConfigurationError."""
    network = Guarded(
        allow_private=settings.allow_private,
        connect_seconds=settings.connect_seconds,
        total_seconds=settings.total_seconds,
        look_up=look_up,
    )
    try:
        check_url(
            attempt.url,
            allow_private=settings.allow_private,
            allow_http=settings.allow_http,
            ports=settings.ports,
        )
        with httpcore.ConnectionPool(ssl_context=_tls(settings.ca_file), network_backend=network) as pool:
            status = _post(pool, attempt)
    except _FAULTS as error:
        return Outcome(problem=_problem(error, settings))
    if 200 <= status < 300:
        return Outcome(status)
    more = ", and redirects are not followed" if 300 <= status < 400 else ""
    return Outcome(status, f"it answered {status}{more}")


def headers(event_id: str, body: str, secrets: Sequence[str], at: datetime) -> dict[str, str]:
    """The signed headers: one signature a secret, the newest first."""
    signatures = [Webhook(secret).sign(event_id, at, body) for secret in secrets]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _post(pool: httpcore.ConnectionPool, attempt: Attempt) -> int:
    made = headers(attempt.event_id, attempt.body, attempt.secrets, now()) | {
        "Content-Type": "application/json",
        "User-Agent": "Afterlive-Webhooks/1",
        "Connection": "close",
    }
    with pool.stream("POST", attempt.url, headers=list(made.items()), content=attempt.body.encode()) as response:
        # A little of it, so that the receiver need not meet a closed connection; what it says does not matter.
        with suppress(*_FAULTS):
            size = 0
            for block in response.iter_stream():
                size += len(block)
                if size > _ANSWER_BYTES:
                    break
        return response.status


def _problem(error: Exception, settings: WebhookSettings) -> str:
    """In our own words: a library's may hold the address."""
    cause = error.args[0] if error.args else None  # what the library met with, where it did
    if isinstance(error, WebhookUrlRefused):
        return error.detail
    if isinstance(error, httpcore.ConnectTimeout):
        return f"it did not take the connection within {settings.connect_seconds:g} s"
    if isinstance(error, httpcore.TimeoutException):
        return f"it did not answer within {settings.total_seconds:g} s"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return "it does not speak TLS"
    if isinstance(error, httpcore.ConnectError):
        return f"it cannot be reached ({type(cause).__name__})" if isinstance(cause, OSError) else str(error)
    if isinstance(error, httpcore.ProtocolError):
        return "its answer is not HTTP"
    return "it broke the connection off"


@lru_cache(maxsize=4)
def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigurationError(setting="AFTERLIVE_WEBHOOK_CA_FILE", reason=str(error)) from None
