"""What commands let libraries say."""

from __future__ import annotations

import logging


def quiet_logs(level: int) -> None:
    """One line an event on stderr; the libraries' own chatter only from warnings on."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in ("celery", "kombu", "alembic", "uvicorn", "multipart", "botocore", "s3transfer", "urllib3", "httpx"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # It warns that the in-process broker has no host name.
    logging.getLogger("kombu.connection").setLevel(logging.ERROR)
