"""TLS to the broker and to Redis: certificates are always checked, and so is the name they are for."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urlsplit

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
    made: dict[str, Any] = {}
    broker = settings.broker_url.get_secret_value()
    if broker.startswith("amqps:"):
        # py-amqp compares no name unless it is told one, and kombu would tell it 127.0.0.1 for localhost.
        name = urlsplit(broker).hostname
        made["broker_use_ssl"] = {**_files(settings), "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": name}
    if options := redis_options(settings):
        made["redis_backend_use_ssl"] = options
    return made


def redis_options(settings: BusSettings) -> dict[str, Any]:
    """For Redis' own client; nothing where the result backend's URL is not `rediss`."""
    if not settings.result_backend.get_secret_value().startswith("rediss:"):
        return {}
    files = {f"ssl_{name}": value for name, value in _files(settings).items()}
    return {**files, "ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}


def _files(settings: BusSettings) -> dict[str, str]:
    # Without a list of whom to trust, these too take the system's.
    files = {"ca_certs": settings.ca_file, "certfile": settings.cert_file, "keyfile": settings.key_file}
    return {name: str(path) for name, path in files.items() if path}
