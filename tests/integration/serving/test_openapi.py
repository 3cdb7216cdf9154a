"""What the gateway says of itself in OpenAPI, held against what it does (schemathesis)."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from aios_platform.artifacts import ArtifactStore
from tests.faults.gateway_process import GatewayProcess, gateway
from tests.served_models import ROW, declare, make_champion, network

pytestmark = [pytest.mark.postgres]

MODEL = "described"
ARROW = "application/vnd.apache.arrow.stream"
WISHES = {"Idempotency-Key", "Aios-Cost", "Aios-Latency-Ms", "Aios-Deadline-Ms"}
EXAMPLES = 25


@pytest.fixture(scope="module")
def served(database, tmp_path_factory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    store = ArtifactStore(str(folder / "artifacts"))
    declare(folder / "defs", MODEL, max_rows=50)
    make_champion(database, store, network(), model=MODEL)
    with gateway(
        folder, database=database, artifacts=str(folder / "artifacts"), defs=folder / "defs"
    ) as started:
        yield started


def arrow(rows: int) -> bytes:
    table = pa.Table.from_pylist([ROW] * rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.fixture(scope="module")
def api(served):
    import schemathesis

    schemathesis.openapi.media_type(ARROW, st.integers(1, 50).map(arrow))
    config = schemathesis.Config.from_dict(
        {"checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}}}
    )
    url = f"http://127.0.0.1:{served.port}/openapi.json"
    return schemathesis.openapi.from_url(url, config=config)


def hold(operation, mode: str) -> None:
    """Status codes, content types and bodies are those that the document allows."""
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    good = [not_a_server_error, positive_data_acceptance]

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=HealthCheck
    )
    @given(case=operation.as_strategy(generation_mode=GenerationMode(mode)))
    def holds(case):
        # Of a binary body the document says nothing that could be broken.
        assume(mode == "positive" or case.media_type != ARROW)
        answer = case.call()
        # Who asks for more than there is, or the same key for something else, is told so.
        refused = answer.status_code in (422, 504) and WISHES & case.headers.keys()
        case.validate_response(answer, excluded_checks=good if refused else None)

    holds()


def test_the_document_is_all_there(api):
    labels = {found.ok().label for found in api.get_all_operations()}
    models = {f"POST /v1/models/{MODEL}:{verb}" for verb in ("predict", "stream")}
    assert models | {"GET /healthz", "GET /readyz", "GET /metrics", "GET /v2"} <= labels
    api.validate()


def test_what_it_allows_is_answered_as_it_says(api):
    for found in api.get_all_operations():
        hold(found.ok(), "positive")


def test_what_it_does_not_allow_is_refused_as_it_says(api):
    for found in api.get_all_operations():
        if found.ok().method == "post":
            hold(found.ok(), "negative")


def test_nothing_of_it_was_a_failure_of_the_gateway(served):
    assert served.metric("aios_refused_total", code="internal_error") == 0
    assert "Traceback" not in served.log
