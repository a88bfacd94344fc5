"""Who is asking, for the audit: whose key it was, and, where a client says so, who uses it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

from fastapi import Header, Request
from fastapi.exceptions import RequestValidationError

from control.api.auth import offered_key

LONGEST: Final = 128
_DESCRIPTION: Final = (
    f"Who does this, for the audit: at most {LONGEST} printable characters. The key's fingerprint is put in front."
)


def fingerprint(key: str) -> str:
    """Tells keys apart, and nothing of a key: the first eight hex digits of its SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def actor(
    request: Request,
    x_actor: Annotated[str | None, Header(description=_DESCRIPTION, examples=["ann@example.com"])] = None,
) -> str:
    """`key:3f2a9c01 ann@example.com`; a dependency. Raises RequestValidationError where the name is not one."""
    key, _ = offered_key(request.headers)
    whose = f"key:{fingerprint(key or '')}"
    if x_actor is None:
        return whose
    try:
        # HTTP has bytes here, which the framework takes for Latin-1 (RFC 9110, 5.5); clients send UTF-8.
        name = x_actor.encode("latin-1").decode().strip()
    except UnicodeError:
        raise _invalid("It is not UTF-8.") from None
    if not 0 < len(name) <= LONGEST or not name.isprintable():
        raise _invalid(f"It should have 1 to {LONGEST} printable characters.")
    return f"{whose} {name}"


def _invalid(problem: str) -> RequestValidationError:
    return RequestValidationError([{"type": "value_error", "loc": ("header", "X-Actor"), "msg": problem}])
