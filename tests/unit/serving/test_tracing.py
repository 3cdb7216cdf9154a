"""Traces: continued where the caller has one, sampled where not, exported by OTLP."""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from aios_platform.errors import SettingsError
from aios_platform.serving.tracing import Tracer, tracer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def header(flags: str = "01", version: str = "00", more: str = "") -> bytes:
    return f"{version}-{TRACE}-{PARENT}-{flags}{more}".encode()


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def test_a_request_continues_its_callers_trace(exported):
    traces = Tracer(SimpleSpanProcessor(exported), "aios-gateway", share=0)
    span = traces.start("POST /v1/models/{model}:predict", header())
    assert span.trace_id == TRACE
    span.set_attribute("aios.model", "m")
    begin = time.time_ns()
    span.stage("queue", begin, begin + 5_000, rows=3)
    span.set_error("overloaded")
    span.end()
    stage, request = exported.get_finished_spans()
    assert (request.context.trace_id, request.parent.span_id) == (int(TRACE, 16), int(PARENT, 16))
    assert request.parent.is_remote
    assert request.kind is SpanKind.SERVER
    assert request.resource.attributes["service.name"] == "aios-gateway"
    assert dict(request.attributes) == {"aios.model": "m", "error.type": "overloaded"}
    assert request.status.status_code is StatusCode.ERROR
    assert stage.parent.span_id == request.context.span_id
    assert (stage.name, stage.end_time - stage.start_time) == ("queue", 5_000)
    assert dict(stage.attributes) == {"rows": 3}


@pytest.mark.parametrize(
    ("sent", "sampled"),
    [
        (header(), True),
        (header("03"), True),
        (header("00"), False),
        (header("02"), False),
        (header(version="01"), True),
        (header(version="01", more="-later"), True),
    ],
)
def test_the_caller_decides_whether_its_trace_is_sampled(exported, sent, sampled):
    for share in (0, 1):
        span = Tracer(SimpleSpanProcessor(exported), "g", share).start("n", sent)
        assert (span is not None) is sampled


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"00", b"\xff\xfe", header()[:-1], header(more="-more"), header(more="0"),
        header(version="ff"), header().upper(), header(version="0"),
        header().replace(TRACE.encode(), b"0" * 32), header().replace(PARENT.encode(), b"0" * 16),
    ],
)  # fmt: skip
def test_a_malformed_header_counts_as_none(exported, sent):
    assert Tracer(SimpleSpanProcessor(exported), "g", 0).start("n", sent) is None
    span = Tracer(SimpleSpanProcessor(exported), "g", 1).start("n", sent)
    span.end()
    [request] = exported.get_finished_spans()
    assert request.parent is None
    assert span.trace_id != TRACE


@given(st.binary(max_size=80))
def test_no_header_makes_a_request_fail(sent):
    Tracer(SimpleSpanProcessor(InMemorySpanExporter()), "g", 0.5).start("n", sent)


def test_the_declared_share_of_requests_is_sampled(exported):
    traces = Tracer(SimpleSpanProcessor(exported), "g", 0.25)
    found = sum(traces.start("n", None) is not None for _ in range(2000))
    # Beyond five standard deviations.
    assert 400 < found < 600


def test_without_an_endpoint_nothing_is_traced():
    traces = tracer("g", share=1, endpoint=None)
    assert traces.start("n", header()) is None
    traces.close()


def test_what_cannot_be_is_refused(monkeypatch):
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(SettingsError, match="share"):
            tracer("g", share=share, endpoint=None)
    for endpoint in ("", "collector:4318", "ftp://collector", "http://"):
        with pytest.raises(SettingsError, match="no http"):
            tracer("g", share=1, endpoint=endpoint)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(
        SettingsError, match=r"extra 'otlp' is not installed.*aios-platform\[otlp\]"
    ):
        tracer("g", share=1, endpoint="http://127.0.0.1:4318")


@pytest.fixture
def collector():
    """A collector that keeps what it is sent: paths and bodies."""
    taken: list[tuple[str, bytes]] = []

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Taking)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_reach_a_collector(collector):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    endpoint, taken = collector
    traces = tracer("aios-gateway", share=0, endpoint=endpoint)
    traces.start("predict", header()).end()
    traces.close()
    [(path, body)] = taken
    assert path == "/v1/traces"
    [resource] = ExportTraceServiceRequest.FromString(body).resource_spans
    [span] = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("predict", TRACE)
