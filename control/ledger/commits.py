"""News: whoever waits for something to happen is told after the commit that made it so, in this process at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import event
from sqlalchemy.orm import Session

_NEWS: Final = "afterlive_news"
_listeners: list[Callable[[], None]] = []


def announce(session: Session) -> None:
    """Tell the listeners once this transaction is committed."""
    session.info[_NEWS] = True


def on_news(listener: Callable[[], None]) -> Callable[[], None]:
    """Have `listener` called after each commit, of this process, that something was announced in; call the answer to
    end that."""
    _listeners.append(listener)

    def forget() -> None:
        if listener in _listeners:
            _listeners.remove(listener)

    return forget


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    if session.info.pop(_NEWS, False):
        for listener in list(_listeners):
            listener()
