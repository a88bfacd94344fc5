"""What all messages have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """Base of all payloads: frozen, and a field nobody declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
