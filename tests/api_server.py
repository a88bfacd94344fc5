"""The API on a real port, in a thread of the test's process, and clients of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from control.ledger.engine import Ledger
from control.settings import Settings
from control.storage import LocalStore
from tests import services

PROBLEM = "application/problem+json"


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Base URL of `app`, answering. Open event streams end when it stops."""
    port = services.free_port()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=3, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="api", daemon=True)
    thread.start()
    deadline = time.monotonic() + 15
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the API did not start")
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        app.state.services.closing.set()
        server.should_exit = True
        thread.join(timeout=15)


@dataclass
class Api:
    """A running API and what it runs on."""

    app: FastAPI
    ledger: Ledger
    store: LocalStore
    settings: Settings
    client: httpx.Client
    """With the key."""
    stranger: httpx.Client
    """Without."""
    woken: list[float] = field(default_factory=list)

    def stream(self, **more: Any) -> str:
        answer = self.client.post("/streams", json={"title": "A stream", **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def ended(self) -> tuple[str, dict[str, Any]]:
        """A stream that ended, and the answer to that."""
        stream_id = self.stream()
        answer = self.client.post(f"/streams/{stream_id}/end", json={"recording": "a.mp4"})
        assert answer.status_code == 202, answer.text
        return stream_id, answer.json()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer, which must be one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    assert document["type"] == f"urn:afterlive:problem:{code}"
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == answer.request.url.path
    return document
