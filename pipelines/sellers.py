"""What sellers are told, where their address is known."""

from __future__ import annotations

from sqlalchemy.orm import Session

from control.bus import names
from control.ledger import notices
from control.ledger.models import Replay, Stream


def replay_is_ready(session: Session, replay: Replay) -> None:
    """All of the replay can be watched. Told once a replay."""
    stream = session.get_one(Stream, replay.stream_id)
    contact = notices.contact(session, stream.seller_id)
    if contact is not None:
        notices.request(
            session,
            names.SEND_REPLAY_READY_EMAIL,
            key=f"replay-ready:{replay.id}",
            to=contact.email,
            template="replay_ready",
            locale=contact.locale,
            data={"stream_id": stream.id, "title": stream.title},
            about=stream.id,
        )
