"""Playback links are credentials: no log may show one whole."""

from __future__ import annotations

import logging
import re

_LINK = re.compile(r"(/play/[^/\s]+/\d+-)[A-Za-z0-9_-]+")


def without_signature(text: str) -> str:
    """`text` with the signatures of playback links left out."""
    return _LINK.sub(r"\1…", text)


class AccessLogFilter(logging.Filter):
    """Takes signatures out of uvicorn's access log, whose records carry the path as an argument."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(without_signature(arg) if isinstance(arg, str) else arg for arg in record.args)
        return True


def install() -> None:
    """Filter uvicorn's access log, once."""
    logger = logging.getLogger("uvicorn.access")
    if not any(isinstance(known, AccessLogFilter) for known in logger.filters):
        logger.addFilter(AccessLogFilter())
