"""Text messages by a provider with an HTTP interface of the common kind: one POST a message."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import unquote

import httpx

from control.errors import AfterliveError, ConfigurationError, ProviderRefused, SenderRefused, SenderUnavailable

_CHANNEL: Final = "text message"
_TIMEOUT: Final = httpx.Timeout(4.0, connect=2.0)
_LONGEST_SECONDS: Final = 6.0
_LONGEST_ANSWER: Final = 64 * 1024
_PLACE: Final = re.compile(r"\{(?:to|digits|text|key)\}")
# Of all others of 4xx it is us, or the way, they do not like (RFC 9110, 15.5).
_PASSES: Final = {408, 425, 429}
_OF_THE_MESSAGE: Final = {400, 410, 413, 422}


class HttpSender:
    """`https://:TOKEN@host/path`: the token goes as a bearer's. `fields` are what is sent, with {to}, {digits}, {text}
    and {key} put in. Raises ConfigurationError."""

    def __init__(
        self, url: str, fields: Mapping[str, str], encoding: Literal["json", "form"] = "json", id_field: str = "id"
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        # No word of the address itself: there is a token in it.
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.username:
            reason = "console:, sns:REGION or https://:TOKEN@host/path"
            raise ConfigurationError(setting="AFTERLIVE_NOTIFY_SMS_URLS", reason=reason)
        token = unquote(parsed.password or "")
        self._url = parsed.copy_with(username=None, password=None)
        self.name = parsed.netloc.decode()
        self._fields = dict(fields)
        self._encoding = encoding
        self._id_field = id_field
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Kept open: shaking hands takes longer than the message.
        self._client = httpx.Client(headers=headers, timeout=_TIMEOUT)

    def send(self, to: str, text: str, key: str) -> str:
        put_in = {"{to}": to, "{digits}": to.lstrip("+"), "{text}": text, "{key}": key}
        made = {name: _filled(field, put_in) for name, field in self._fields.items()}
        content: dict[str, Any] = {"json": made} if self._encoding == "json" else {"data": made}
        give_up = time.monotonic() + _LONGEST_SECONDS
        body = b""
        try:
            with self._client.stream("POST", self._url, headers={"Idempotency-Key": key}, **content) as answer:
                if problem := _problem(answer.status_code, self.name):
                    raise problem
                for block in answer.iter_bytes():
                    body += block
                    if len(body) > _LONGEST_ANSWER or time.monotonic() > give_up:
                        break  # it took the message; what else it has to say we can do without
        except httpx.HTTPError as error:
            raise SenderUnavailable(channel=_CHANNEL, reason=f"{self.name}: {type(error).__name__}") from None
        return self._id_of(body) or key

    def _id_of(self, body: bytes) -> str:
        try:
            found = httpx.Response(200, content=body).json()
        except ValueError:
            return ""
        return str(found.get(self._id_field) or "") if isinstance(found, dict) else ""


def _filled(field: str, put_in: Mapping[str, str]) -> str:
    """In one go: a text that happens to hold the name of a place is not filled in itself."""
    return _PLACE.sub(lambda found: put_in[found[0]], field)


def _problem(status: int, name: str) -> AfterliveError | None:
    if 200 <= status < 300:
        return None
    kind: type[AfterliveError] = ProviderRefused
    if status >= 500 or status in _PASSES:
        kind = SenderUnavailable
    elif status in _OF_THE_MESSAGE:
        kind = SenderRefused
    return kind(channel=_CHANNEL, reason=f"{name} said {status}")
