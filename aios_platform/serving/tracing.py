"""Traces of requests, as OpenTelemetry has them, with W3C Trace Context.

A request whose caller traces it continues that trace; of the others a declared share is sampled.
What is not sampled costs next to nothing, and without an endpoint nothing is.
"""

import random
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aios_platform.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span as OpenTelemetrySpan
    from opentelemetry.trace import Tracer as OpenTelemetryTracer

# W3C Trace Context, Level 2: version, trace id, parent id, flags; only a later version says more.
_TRACEPARENT = re.compile(
    rb"(?!ff)(?!00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_SAMPLED = 1
SCOPE = "aios_platform.serving"
Value = str | bool | int | float


class Span:
    """One request in a trace.

    Args:
        span: OpenTelemetry's own.
        tracer: What makes its stages.
    """

    __slots__ = ("_span", "_tracer")

    def __init__(self, span: "OpenTelemetrySpan", tracer: "OpenTelemetryTracer") -> None:
        self._span = span
        self._tracer = tracer

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits, for a log line or a reply."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def set_attribute(self, name: str, value: Value) -> None:
        """Say something about the request; never its values, and never a key."""
        self._span.set_attribute(name, value)

    def set_error(self, kind: str) -> None:
        """Mark the request as failed.

        Args:
            kind: Stable code of the problem, as in the reply.
        """
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)

    def stage(self, name: str, begin: int, end: int, **attributes: Value) -> None:
        """Add a part of the request that is over, such as the wait in a queue.

        Args:
            name: What was done.
            begin: When it began, `time.time_ns`.
            end: When it ended.
            attributes: What is to be said about it.
        """
        from opentelemetry.trace import set_span_in_context

        self._tracer.start_span(
            name,
            context=set_span_in_context(self._span),
            attributes=attributes,
            start_time=begin,
        ).end(end)

    def end(self) -> None:
        """The request was answered; the span is exported later, by a thread of its own."""
        self._span.end()


class Tracer:
    """Begins spans of the requests that are sampled.

    Args:
        processor: Takes ended spans; None: nothing is traced.
        service: Name of the service in traces.
        share: Of requests that bring no trace of their own.
    """

    def __init__(self, processor: "SpanProcessor | None", service: str, share: float) -> None:
        self._share = share
        self._tracer: OpenTelemetryTracer | None = None
        if processor is None:
            return
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        # Sampled by us already, before a span is made.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create({SERVICE_NAME: service})
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(SCOPE)

    def start(self, name: str, traceparent: bytes | None) -> Span | None:
        """Begin the span of a request.

        Args:
            name: Low in variety: method and route.
            traceparent: The header of that name. One that is malformed counts as none.

        Returns:
            None where the request is not sampled.
        """
        if self._tracer is None:
            return None
        parent = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
        if parent is None:
            # For load, not for secrets.
            if random.random() >= self._share:
                return None
            return self._begin(name, None)
        if not int(parent[3], 16) & _SAMPLED:
            return None
        return self._begin(name, _context(parent[1], parent[2]))

    def close(self) -> None:
        """Export what has ended, and end the exporting thread."""
        if self._tracer is not None:
            self._provider.shutdown()

    def _begin(self, name: str, context: "Context | None") -> Span:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        assert self._tracer is not None
        # An empty context, and not the thread's: nothing else may become the parent.
        span = self._tracer.start_span(name, context=context or Context(), kind=SpanKind.SERVER)
        return Span(span, self._tracer)


def tracer(service: str, *, share: float, endpoint: str | None) -> Tracer:
    """A tracer that exports by OTLP over HTTP.

    Args:
        service: Name of the service in traces.
        share: Of requests that bring no trace of their own, 0 to 1.
        endpoint: URL of the collector, e.g. 'http://127.0.0.1:4318'; None: nothing is traced.

    Raises:
        SettingsError: The share or the endpoint cannot be, or the extra `otlp` is not installed.
    """
    if not 0 <= share <= 1:
        raise SettingsError(
            f"The share of traced requests is {share}.", remedy="Give a number from 0 to 1."
        )
    if endpoint is None:
        return Tracer(None, service, share)
    return Tracer(_exporting(endpoint), service, share)


def _exporting(endpoint: str) -> "SpanProcessor":
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SettingsError(
            "The endpoint for traces is no http(s) URL.", remedy="E.g. http://127.0.0.1:4318."
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[import-not-found]
            OTLPSpanExporter,
        )
    except ImportError:
        raise SettingsError(
            "Traces cannot be exported: the extra 'otlp' is not installed.",
            remedy="pip install 'aios-platform[otlp]', or give no endpoint for traces.",
        ) from None
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    path = url.path if url.path.strip("/") else "/v1/traces"
    exporter: Any = OTLPSpanExporter(endpoint=url._replace(path=path).geturl())
    # Bounded: past its queue spans are dropped, and requests never wait.
    return BatchSpanProcessor(exporter)


def _context(trace: bytes, parent: bytes) -> "Context":
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    remote = SpanContext(
        trace_id=int(trace, 16),
        span_id=int(parent, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(remote), Context())
