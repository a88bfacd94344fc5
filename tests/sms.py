"""Real providers of text messages on the loopback interface, which keep what they get."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from tests.services import free_port

_SNS = "http://sns.amazonaws.com/doc/2010-03-31/"
TOKEN = "t0ken/of:ours"


@dataclass
class Message:
    """One request, as it came."""

    fields: dict[str, str]
    headers: dict[str, str]
    at: float


@dataclass
class Provider:
    """What it took, and what it says instead of taking one."""

    port: int
    messages: list[Message] = field(default_factory=list)
    asked: int = 0
    """Requests, taken or not."""
    status: int = 200
    error: str = ""
    """SNS' code."""
    answers: list[int] = field(default_factory=list)
    """The next answers' status, before `status`."""
    hold: threading.Event | None = None
    """Nothing is answered before it is set."""

    @property
    def url(self) -> str:
        return f"http://:{TOKEN.replace('/', '%2F').replace(':', '%3A')}@127.0.0.1:{self.port}/messages"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, str, str]:
        body = request.rfile.read(int(request.headers["Content-Length"])).decode()
        self.asked += 1
        if self.hold is not None:
            self.hold.wait(10)
        headers = {name.lower(): value for name, value in request.headers.items()}
        is_json = headers["content-type"].startswith("application/json")
        fields: dict[str, str] = json.loads(body) if is_json else dict(parse_qsl(body, keep_blank_values=True))
        status = self.answers.pop(0) if self.answers else self.status
        if status == 200:
            self.messages.append(Message(fields, headers, time.time()))
        if request.path == "/":
            return status, "text/xml", self._as_sns(status)
        return status, "application/json", json.dumps({"id": f"m-{len(self.messages)}", "echo": fields})

    def _as_sns(self, status: int) -> str:
        if status == 200:
            inner = f"<PublishResult><MessageId>sns-{len(self.messages)}</MessageId></PublishResult>"
            return f'<PublishResponse xmlns="{_SNS}">{inner}</PublishResponse>'
        inner = f"<Error><Type>Sender</Type><Code>{self.error}</Code><Message>+886912345678 is bad</Message></Error>"
        return f'<ErrorResponse xmlns="{_SNS}">{inner}</ErrorResponse>'


@contextmanager
def provider(**changes: Any) -> Iterator[Provider]:
    """Runs until the block ends: SNS' query protocol at `/`, one of the common kind everywhere else."""
    made = Provider(free_port(), **changes)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, kind, body = made.answer(self)
            content = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing of a message is for a log."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that hangs up early is nothing to tell of."""

    server = Server(("127.0.0.1", made.port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        if made.hold is not None:
            made.hold.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
