"""Traces (OpenTelemetry): one from an HTTP request through outbox, relay, queue and worker to the last chunk.

On where AFTERLIVE_TRACING_ENDPOINT is set, with the extra `tracing`; elsewhere a comparison with None is all it costs.
Only requests begin traces, a share of them. What carries one on, from row to message to task, is its `traceparent`
(https://www.w3.org/TR/trace-context/); what comes without one is not traced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from control.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind, Tracer

    from control.settings import TracingSettings

HEADER: Final = "traceparent"
_tracer: Tracer | None = None


class Traced:
    """A span that was begun; where nothing is traced, none."""

    def __init__(self, span: Span | None = None) -> None:
        self._span = span

    @property
    def parent(self) -> str | None:
        """What to send along, so that what follows belongs to it."""
        return _written(self._span) if self._span else None

    def name(self, name: str) -> None:
        """By what is known of it only later."""
        if self._span:
            self._span.update_name(name)

    def note(self, **facts: str | int | float) -> None:
        """Attributes. Nobody's address and no secret: traces are seen by many."""
        if self._span:
            self._span.set_attributes({f"afterlive.{name}": value for name, value in facts.items()})

    def failed(self, why: str) -> None:
        if self._span:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, why))

    def end(self) -> None:
        if self._span:
            self._span.end()


_NOTHING: Final = Traced()


def start(settings: TracingSettings, service: str) -> None:
    """Send what this process traces to the collector, as `afterlive-SERVICE`. Raises ConfigurationError where the
    extra is not installed."""
    if settings.endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        reason = f"it needs the packages of afterlive[tracing]: {error}"
        raise ConfigurationError(setting="AFTERLIVE_TRACING_ENDPOINT", reason=reason) from None
    provider = provider_of(settings.share, service)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(settings.endpoint)))
    use(provider)


def provider_of(share: float, service: str) -> TracerProvider:
    """One that keeps `share` of the requests, and whatever follows from those it keeps."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    by_share = TraceIdRatioBased(share)
    return TracerProvider(
        resource=Resource.create({"service.name": f"afterlive-{service}"}),
        sampler=ParentBased(by_share, remote_parent_not_sampled=by_share),
    )


def use(provider: TracerProvider | None) -> None:
    """Trace with `provider` from now on; None: not at all."""
    global _tracer
    _tracer = provider.get_tracer("afterlive") if provider else None


def here() -> str | None:
    """The `traceparent` of what this thread is at; None where that is not traced."""
    if _tracer is None:
        return None
    from opentelemetry.trace import get_current_span

    return _written(get_current_span())


@contextmanager
def request(method: str, offered: str | None) -> Iterator[Traced]:
    """Around an HTTP request. A caller may bring its trace; whether it is kept, is not the caller's to say."""
    if _tracer is None:
        yield _NOTHING
        return
    parent = f"{offered[:-2]}00" if offered else None
    with _around(method, "SERVER", parent) as traced:
        yield traced


@contextmanager
def task(name: str, parent: str | None) -> Iterator[Traced]:
    """Around the run of a task whose message had `parent`."""
    if _tracer is None or parent is None:
        yield _NOTHING
        return
    with _around(f"run {name}", "CONSUMER", parent) as traced:
        yield traced


@contextmanager
def within(parent: str | None) -> Iterator[None]:
    """What is done in the block, in whichever thread, belongs to `parent`."""
    if _tracer is None or parent is None:
        yield
        return
    from opentelemetry import context

    token = context.attach(_read(parent))
    try:
        yield
    finally:
        context.detach(token)


def sending(name: str, parent: str | None, since: datetime) -> Traced:
    """A message on its way from its row, where it is `since`, to the bus. Its end is the caller's to say."""
    if _tracer is None or parent is None:
        return _NOTHING
    at = round(since.timestamp() * 1e9)
    return Traced(_tracer.start_span(f"send {name}", _read(parent), _kind("PRODUCER"), start_time=at))


@contextmanager
def _around(name: str, kind: str, parent: str | None) -> Iterator[Traced]:
    if _tracer is None:
        yield _NOTHING
        return
    with _tracer.start_as_current_span(
        name, _read(parent), _kind(kind), record_exception=False, set_status_on_exception=False
    ) as span:
        yield Traced(span)


def _kind(name: str) -> SpanKind:
    from opentelemetry.trace import SpanKind

    return SpanKind[name]


def _read(parent: str | None) -> Any:
    """The context of a `traceparent`: an empty one where there is none, or it is not sound."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({HEADER: parent} if parent else {}, Context())


def _written(span: Span) -> str | None:
    context = span.get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
