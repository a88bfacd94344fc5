"""Signed messages, where keys are set: a worker then does nothing that somebody else put on the bus.

The broker's users keep tiers apart (`control.bus.rights`); this holds where the broker itself, or a user's password,
is not trusted. HMAC-SHA256 over the task's name, its id and its arguments; the first key signs, any verifies, so that
keys can be changed without a pause.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from celery import Celery
from celery.local import Proxy

SIGNATURE: Final = "afterlive_signature"
_keys: WeakKeyDictionary[Celery, tuple[bytes, ...]] = WeakKeyDictionary()


def use_keys(app: Celery, keys: Sequence[str]) -> None:
    """Sign and verify what `app` sends and receives; with no keys, neither."""
    _keys[app] = tuple(key.encode() for key in keys)


def signature(app: Celery, task: str, task_id: str, payload: dict[str, Any]) -> dict[str, str]:
    """The header to send along; none where messages are not signed."""
    keys = _keys_of(app)
    return {SIGNATURE: _sign(keys[0], task, task_id, payload)} if keys else {}


def is_genuine(app: Celery, offered: object, task: str, task_id: str, payload: dict[str, Any]) -> bool:
    """Whether the message comes from somebody who has a key; always, where messages are not signed."""
    keys = _keys_of(app)
    if not keys:
        return True
    seen = str(offered).encode()
    return any(hmac.compare_digest(_sign(key, task, task_id, payload).encode(), seen) for key in keys)


def _keys_of(app: Celery) -> tuple[bytes, ...]:
    # What tasks call `current_app` is a proxy.
    return _keys.get(app._get_current_object() if isinstance(app, Proxy) else app, ())


def _sign(key: bytes, task: str, task_id: str, payload: dict[str, Any]) -> str:
    text = json.dumps([task, task_id, payload], sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
