"""A real HTTP server that receives webhooks, checks their signatures and answers as it is told."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme
from standardwebhooks import Webhook

from tests.services import free_port


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def signatures(self) -> list[str]:
        return self.headers["webhook-signature"].split(" ")

    def verified(self, secret: str) -> Any:
        """What it says, where it is signed with `secret`; raises WebhookVerificationError."""
        found = Webhook(secret).verify(self.body, self.headers)
        assert found == json.loads(self.body)
        return found


@dataclass
class Receiver:
    """What it got, in order, and what it says next."""

    port: int
    scheme: str = "http"
    got: list[Received] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """The status of each answer; 200 once there are no more."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of each answer."""
    body: bytes = b"ok"
    held: threading.Event = field(default_factory=threading.Event)
    """Answers wait until it is set."""
    drips: bool = False
    """It sends its answer a byte at a time, for ever."""
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"


@contextmanager
def receiver(*, signed_by: trustme.CA | None = None, name: str = "127.0.0.1") -> Iterator[Receiver]:
    """Runs until the block ends. `signed_by`: with TLS, and a certificate for `name`."""
    made = Receiver(free_port(), scheme="https" if signed_by else "http")
    made.held.set()
    server = ThreadingHTTPServer(("127.0.0.1", made.port), _handler(made))
    server.daemon_threads = True
    server.block_on_close = False
    if signed_by is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        signed_by.issue_cert(name).configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), name="receiver", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.held.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def _handler(made: Receiver) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with made.lock:
                made.got.append(Received(self.path, headers, body, time.monotonic()))
                made.at_once += 1
                made.most_at_once = max(made.most_at_once, made.at_once)
                status = made.answers.pop(0) if made.answers else 200
            made.held.wait(30)
            with made.lock:
                made.at_once -= 1
            with suppress(OSError):  # who asked has gone
                self._answer(status)

        def _answer(self, status: int) -> None:
            if made.drips:
                for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.01)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(made.body)), **made.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
