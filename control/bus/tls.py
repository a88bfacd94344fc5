"""TLS to the broker and to Redis: certificates are always checked."""

from __future__ import annotations

import ssl
from typing import Any

from control.settings import BusSettings


def context(settings: BusSettings) -> ssl.SSLContext | None:
    """For aio-pika; None where the broker's URL is not `amqps`."""
    if not settings.broker_url.get_secret_value().startswith("amqps:"):
        return None
    made = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    if settings.cert_file:
        made.load_cert_chain(str(settings.cert_file), str(settings.key_file) if settings.key_file else None)
    return made


def celery_options(settings: BusSettings) -> dict[str, Any]:
    """For Celery's own connections, which take files, not a context."""
    files = {"ca_certs": settings.ca_file, "certfile": settings.cert_file, "keyfile": settings.key_file}
    named = {name: str(path) for name, path in files.items() if path}
    made: dict[str, Any] = {}
    if settings.broker_url.get_secret_value().startswith("amqps:"):
        if not settings.ca_file:
            named["ca_certs"] = ssl.get_default_verify_paths().cafile or ""
        made["broker_use_ssl"] = {**named, "cert_reqs": ssl.CERT_REQUIRED}
    if settings.result_backend.get_secret_value().startswith("rediss:"):
        made["redis_backend_use_ssl"] = {
            **{f"ssl_{name}": value for name, value in named.items()},
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }
    return made
