"""What crosses the HTTP API of mails and messages, with examples."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from control.api.models import NO_NUL, Body, Identifier

Locale = Literal["zh-TW", "en"]
Address = Annotated[
    str,
    StringConstraints(max_length=254, pattern=r"^[^\s@<>()\[\],;:\\\x22\x00-\x1f]+@[^\s@<>()\[\],;:\\\x22\x00-\x1f]+$"),
]
Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200, pattern=NO_NUL)]
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=NO_NUL)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=100_000, pattern=NO_NUL)]
Link = Annotated[str, StringConstraints(max_length=2000, pattern=r"^https?://[!#-;=?-~]+$")]
Unsubscribe = Annotated[str, StringConstraints(max_length=2000, pattern=r"^(https|mailto):[!#-;=?-~]+$")]


class Welcome(Body):
    """Somebody registered."""

    user_id: Identifier = Field(examples=["user-7"])
    email: Address = Field(examples=["mei@example.com"])
    name: Name = Field("", examples=["Mei"])
    locale: Locale = "zh-TW"


class NoticeAnswer(BaseModel):
    """One message to one person."""

    id: str
    channel: str = Field(examples=["mail"])
    template: str = Field(examples=["order_confirmation"])
    locale: str
    to: str = Field(examples=["m•••@example.com"], description="Not the whole address: who it is, its owner knows.")
    about: str
    state: str = Field(description="pending, sending; sent, failed, bounced, suppressed or cancelled.")
    attempts: int
    problem: str | None
    created_at: datetime
    sent_at: datetime | None


class NoticeList(BaseModel):
    """Messages, newest first."""

    items: list[NoticeAnswer]


class Announcement(Body):
    """A text in the shop's own layout."""

    title: Line = Field(examples=["Autumn ceramics, live tonight at eight"])
    text: Text
    link: Link | None = None


class Message(Body):
    """A mail of your own making, sent as it is."""

    subject: Line
    text: Text
    html: Text | None = None


class Recipient(Body):
    """Who gets it."""

    email: Address
    name: Name = ""
    locale: Locale | None = None


class BulkCreate(Body):
    """One text to many: an announcement or a message."""

    id: Identifier = Field(description="Asked for again under the same id it is sent once.", examples=["autumn-sale"])
    locale: Locale = "zh-TW"
    announcement: Announcement | None = None
    message: Message | None = None
    unsubscribe: Unsubscribe | None = Field(None, description="Where who wants no more of it says so.")
    recipients: list[Recipient] = Field(min_length=1, max_length=10_000)

    @model_validator(mode="after")
    def _one_text(self) -> Self:
        if (self.announcement is None) == (self.message is None):
            raise ValueError("either announcement or message")
        return self


class BulkAnswer(BaseModel):
    """How far a bulk send is."""

    id: str
    state: str = Field(description="running; done or cancelled.")
    total: int = Field(description="Mails; an address that was named twice gets one.")
    counts: dict[str, int] = Field(description="Mails by state.", examples=[{"sent": 180, "pending": 20}])
    created_at: datetime
    finished_at: datetime | None


class SellerContact(Body):
    """Where a seller is told of what concerns them."""

    email: Address
    name: Name | None = None
    locale: Locale = "zh-TW"


class SuppressionCreate(Body):
    """An address that is not to be written to. `unsubscribed`: not in bulk, but of its own orders."""

    email: Address
    reason: Literal["bounced", "complaint", "unsubscribed"]


class SuppressionEnd(Body):
    """An address that takes mail again."""

    email: Address


# --- examples of bodies -----------------------------------------------------------------------------------------------

Examples = dict[str, Any]
WELCOME: Examples = {
    "new": {"value": {"user_id": "user-7", "email": "mei@example.com", "name": "Mei", "locale": "zh-TW"}}
}
TO = [{"email": "mei@example.com", "name": "Mei"}, {"email": "ann@example.com", "locale": "en"}]
TITLE = "Autumn ceramics, live tonight at eight"
BULK: Examples = {
    "announcement": {
        "summary": "In the shop's layout",
        "value": {
            "id": "autumn-sale",
            "announcement": {"title": TITLE, "text": "Bowls from Yingge.", "link": "https://shop.example/live"},
            "recipients": TO,
        },
    },
    "message": {
        "summary": "Of your own making",
        "value": {"id": "autumn-sale-2", "message": {"subject": TITLE, "text": "Bowls."}, "recipients": TO},
    },
}
SELLER: Examples = {"known": {"value": {"email": "kiln@example.com", "name": "Kiln", "locale": "zh-TW"}}}
SUPPRESSION: Examples = {"complaint": {"value": {"email": "mei@example.com", "reason": "complaint"}}}
LIFTED: Examples = {"again": {"value": {"email": "mei@example.com"}}}
