"""A replay that is ready: its seller is told, once."""

from __future__ import annotations

from sqlalchemy import select

from control.bus import names
from control.ledger import notices, streams
from control.ledger.notice_models import Notice
from control.settings import Settings
from tests.backend import Made, backend
from tests.fake_media import Studio


def told(made: Made) -> list[Notice]:
    with made.ledger.read() as session:
        return list(session.scalars(select(Notice)))


def test_the_seller_is_told_once_where_the_address_is_known(settings: Settings) -> None:
    with backend(settings, Studio()) as made:
        with made.ledger.write() as session:
            notices.set_contact(session, "s1", email="kiln@example.com", name="Kiln", locale="zh-TW")
            for seller in ("s1", "s2"):
                streams.create(session, title=f"Live of {seller}", stream_id=seller, seller_id=seller)
                streams.end(session, seller, recording="60s.mp4")
        made.wait("completed", "s1")
        made.wait("completed", "s2")
        (notice,) = told(made)
        assert (notice.task, notice.to, notice.locale) == (
            names.SEND_REPLAY_READY_EMAIL.name,
            "kiln@example.com",
            "zh-TW",
        )
        assert (notice.about, notice.data) == ("s1", {"stream_id": "s1", "title": "Live of s1"})
