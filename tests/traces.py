"""What was traced, kept in memory, or as a collector of OpenTelemetry got it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from control import tracing


@dataclass(frozen=True)
class Seen:
    """One span that ended."""

    name: str
    trace: str
    id: str
    parent: str
    """Empty where it is the first of its trace."""
    service: str
    facts: dict[str, Any]
    failed: bool
    start_ns: int
    end_ns: int


@dataclass
class Traces:
    """The spans that ended, in any order."""

    seen: list[Seen] = field(default_factory=list)

    def named(self, name: str) -> list[Seen]:
        return [one for one in self.seen if one.name == name]

    def from_the_first(self, last: Seen) -> list[str]:
        """Names of the spans that led to `last`, by their parents; the trace is broken where one is missing."""
        by_id = {one.id: one for one in self.seen}
        way = [last]
        while way[-1].parent:
            way.append(by_id[way[-1].parent])
            assert way[-1].trace == last.trace
        return [one.name for one in reversed(way)]


class Memory(Traces):
    """As the SDK's exporter in memory has them."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter
        super().__init__()

    def look(self) -> Memory:
        self.seen = [
            Seen(
                span.name, f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}",
                f"{span.parent.span_id:016x}" if span.parent else "", str(span.resource.attributes["service.name"]),
                dict(span.attributes or {}), not span.status.is_unset, span.start_time or 0, span.end_time or 0,
            )
            for span in self._exporter.get_finished_spans()
        ]  # fmt: skip
        return self


@contextmanager
def traced(share: float = 1.0) -> Iterator[Memory]:
    """Everything in this process is traced until the block ends."""
    exporter = InMemorySpanExporter()
    provider = tracing.provider_of(share, "tests")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    try:
        yield Memory(exporter)
    finally:
        tracing.use(None)
        provider.shutdown()


class Collector(Traces):
    """A server that takes OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.seen += _spans(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def serve(self) -> None:
        self._server.serve_forever()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for resource in request.resource_spans:
        names = {one.key: one.value.string_value for one in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                facts = {one.key: getattr(one.value, one.value.WhichOneof("value") or "") for one in span.attributes}
                yield Seen(
                    span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                    names["service.name"], facts, span.status.code == span.status.STATUS_CODE_ERROR,
                    span.start_time_unix_nano, span.end_time_unix_nano,
                )  # fmt: skip


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector until the block ends."""
    made = Collector()
    thread = threading.Thread(target=made.serve, name="collector", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join()
