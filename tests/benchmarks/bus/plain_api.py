"""The peer of our API: a handler that writes the same rows of the fact, commits, and calls `delay()`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import FastAPI, Header, HTTPException
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from control.ledger.base import new_id
from control.ledger.models import Replay, Stream
from tests.benchmarks.bus.plain import stream_ended
from tests.platform import API_KEY

DATABASE: Final = "BENCH_DATABASE"

app = FastAPI()
engine = create_engine(os.environ.get(DATABASE, "sqlite://"))


@app.get("/healthz")
def health() -> str:
    return "ok"


@app.post("/streams/{stream_id}/end", status_code=202)
def end(stream_id: str, x_api_key: str = Header()) -> dict[str, Any]:
    if x_api_key != API_KEY:
        raise HTTPException(401)
    at = datetime.now(UTC)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        stream = session.get(Stream, stream_id)
        if stream is None or not stream.recording:
            raise HTTPException(404)
        stream.state, stream.ended_at = "ended", at
        replay = Replay(
            id=new_id("rep"), stream_id=stream_id, state="waiting", source=stream.recording, prefix="",
            created_at=at, updated_at=at,
        )  # fmt: skip
        session.add(replay)
    stream_ended.delay(stream_id)
    return {
        "id": stream_id, "title": stream.title, "state": stream.state, "ended_at": at,
        "replay": {"id": replay.id, "state": replay.state, "created_at": at},
    }  # fmt: skip
