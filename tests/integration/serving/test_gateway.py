"""One gateway over every protocol: the same answers, the same refusals, and no leaks."""

import asyncio
import json
import logging
import shutil
import socket
import struct
import subprocess

import numpy as np
import pyarrow as pa
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aios_platform.artifacts import ArtifactStore
from aios_platform.errors import ScoringError
from aios_platform.inference.session import Session
from aios_platform.monitoring.served_content import decode
from aios_platform.serving import engine
from aios_platform.serving.protocol import GatewayProtocol
from tests.gateways import JSON, LocalGateway, local_gateway
from tests.served_models import ROW, declaration, make_champion, network

pytestmark = pytest.mark.postgres

MODEL = "toy"
CONTENT = network(seed=4)
ARROW = "application/vnd.apache.arrow.stream"
ROWS = [
    {"size": n * 7.3, "weight": None if n % 3 == 0 else n / 7, "colour": ("red", "blue")[n % 2]}
    for n in range(50)
]
EARLIER = {
    "version": 2,
    "optional": ["weight"],
    "earlier": [{"version": 1, "rename": {"mass": "weight"}, "defaults": {"colour": "red"}}],
}
CANARY = "Ada-Lovelace-1815"


@pytest.fixture(scope="module")
def spans():
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def served(database, tmp_path_factory, spans):
    store = ArtifactStore(str(tmp_path_factory.mktemp("gateway")))
    make_champion(database, store, CONTENT, model=MODEL)
    declared = [declaration(MODEL, contract=EARLIER, max_rows=600), declaration("unborn")]
    with local_gateway(database, store, declared, SimpleSpanProcessor(spans)) as started:
        yield started


def expected(rows) -> list[float]:
    table = pa.table(
        {
            "size": pa.array([row["size"] for row in rows], pa.float32()),
            "weight": pa.array([row.get("weight") for row in rows], pa.float32()),
            "colour": pa.array([row["colour"] for row in rows]),
        }
    )
    return Session(CONTENT).predict(table).tolist()


def arrow(rows) -> bytes:
    table = pa.Table.from_pylist(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def by_arrow(served: LocalGateway, rows) -> list[float]:
    path = f"/v1/models/{MODEL}:predict"
    answer = served.ask("POST", path, arrow(rows), {"content-type": ARROW})
    assert answer.status == 200, answer.body
    table = pa.ipc.open_stream(answer.body).read_all()
    assert table.schema.metadata[b"aios.version"] == b"1"
    return table["probability"].to_pylist()


def by_json(served: LocalGateway, rows) -> list[float]:
    answer = served.predict(MODEL, {"instances": rows})
    assert answer.status == 200, answer.body
    return [row["probability"] for row in answer.json["predictions"]]


def test_protocols_give_the_same_bits_as_batch_inference(served):
    figures = expected(ROWS)
    assert by_json(served, ROWS) == figures
    assert by_arrow(served, ROWS) == figures
    answer = served.predict(MODEL, {"instances": ROWS}, x_request_id="mine").json
    assert {key: answer[key] for key in ("model", "version", "contract", "request_id")} == {
        "model": MODEL, "version": "1", "contract": 2, "request_id": "mine",
    }  # fmt: skip
    assert len(answer["features"]) == 64


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(ROWS), min_size=1, max_size=40))
def test_a_row_has_the_same_answer_alone_and_among_others(served, rows):
    together = served.together(MODEL, [{"instance": row} for row in rows])
    alone = expected(rows)
    for answer, probability in zip(together, alone, strict=True):
        found = answer.json["prediction"]["probability"]
        assert abs(found - probability) <= engine.TOLERANCE


def test_frames_and_rows_that_share_a_batch_are_not_mixed_up(served):
    async def ask():
        path, header = f"/v1/models/{MODEL}:predict", {"content-type": ARROW}
        return await asyncio.gather(
            served.asked("POST", path, arrow(ROWS[:3]), header),
            served.predicted(MODEL, {"instances": ROWS[10:12]}),
            served.asked("POST", path, arrow(ROWS[20:21]), header),
            served.predicted(MODEL, {"instance": ROWS[30]}),
        )

    first, second, third, fourth = served.run(ask())
    for answer, rows in ((first, ROWS[:3]), (third, ROWS[20:21])):
        found = pa.ipc.open_stream(answer.body).read_all()["probability"].to_pylist()
        assert found == pytest.approx(expected(rows), abs=engine.TOLERANCE)
    found = [row["probability"] for row in second.json["predictions"]]
    assert found == pytest.approx(expected(ROWS[10:12]), abs=engine.TOLERANCE)
    assert fourth.json["prediction"]["probability"] == pytest.approx(
        expected(ROWS[30:31])[0], abs=engine.TOLERANCE
    )


def test_earlier_contracts_are_answered_as_such(served):
    old = served.predict(MODEL, {"instance": {"size": 2, "mass": 1}}, aios_contract="1").json
    new = served.predict(MODEL, {"instance": {"size": 2, "weight": 1, "colour": "red"}}).json
    assert (old["contract"], new["contract"]) == (1, 2)
    assert old["prediction"] == new["prediction"]
    assert served.predict(MODEL, {"instance": {"size": 2, "colour": "red"}}).status == 200
    unknown = served.predict(MODEL, {"instance": ROW}, aios_contract="3")
    assert (unknown.status, unknown.code) == (404, "unknown_contract")
    # Columns in the names of an earlier contract, too.
    table = arrow([{"size": 2.0, "mass": 1.0}])
    header = {"content-type": ARROW, "aios-contract": "1"}
    answer = served.ask("POST", f"/v1/models/{MODEL}:predict", table, header)
    [row] = pa.ipc.open_stream(answer.body).read_all().to_pylist()
    assert row["probability"] == pytest.approx(new["prediction"]["probability"], abs=1e-6)


@pytest.mark.parametrize("events", [False, True])
def test_long_requests_are_answered_part_by_part(served, events):
    rows = ROWS * 12
    answer = served.ask(
        "POST",
        f"/v1/models/{MODEL}:stream",
        json.dumps({"instances": rows}).encode(),
        {"content-type": JSON, "accept": "text/event-stream" if events else "*/*"},
    )
    if events:
        kinds = [line for line in answer.body.decode().split("\n") if line.startswith("event")]
        assert kinds == ["event: prediction"] * 600 + ["event: end"]
        lines = [line[6:] for line in answer.body.decode().split("\n") if line.startswith("data")]
    else:
        lines = answer.body.decode().splitlines()
    *found, end = [json.loads(line) for line in lines]
    assert (end["done"], end["rows"]) == (True, 600)
    assert [row["place"] for row in found] == list(range(600))
    assert [row["probability"] for row in found] == pytest.approx(expected(rows), abs=1e-6)
    assert {row["version"] for row in found} == {"1"}


def test_a_stream_that_fails_on_its_way_says_so_in_its_last_line(served, monkeypatch, caplog):
    from aios_platform.serving import streams

    monkeypatch.setattr(streams, "PART_ROWS", 10)
    rows = ROWS[:10] + [{**ROWS[0], "colour": "red"}] * 5
    run = engine.Engine.run
    asked = []

    def fail(self, matrix, texts):
        asked.append(len(matrix))
        if len(asked) == 2:
            raise ValueError(CANARY)
        return run(self, matrix, texts)

    monkeypatch.setattr(engine.Engine, "run", fail)
    answer = served.ask(
        "POST",
        f"/v1/models/{MODEL}:stream",
        json.dumps({"instances": rows}).encode(),
        {"content-type": JSON},
    )
    end = json.loads(answer.body.splitlines()[-1])
    assert (end["done"], end["rows"], end["code"]) == (False, 10, "internal_error")
    assert CANARY not in answer.body.decode()
    assert CANARY not in caplog.text


def v2(served, body, headers=None, model=MODEL):
    return served.ask("POST", f"/v2/models/{model}/infer", body, headers)


def tensors(rows, **more):
    return {
        "inputs": [
            {"name": "size", "datatype": "FP32", "shape": [len(rows), 1],
             "data": [[row["size"]] for row in rows]},
            {"name": "weight", "datatype": "FP64", "shape": [len(rows)],
             "data": [row["weight"] for row in rows]},
            {"name": "colour", "datatype": "BYTES", "shape": [len(rows)],
             "data": [row["colour"] for row in rows]},
        ],
        **more,
    }  # fmt: skip


def test_v2_requests_in_json_are_answered_like_all_others(served):
    at = {"name": "at", "datatype": "BYTES", "shape": [50], "data": ["2024-05-01T00:00:00Z"] * 50}
    asked = tensors(ROWS, id="mine")
    asked["inputs"].append(at)
    answer = v2(served, json.dumps(asked).encode()).json
    assert answer["model_name"] == MODEL
    assert answer["model_version"] == "1"
    assert answer["id"] == "mine"
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["probability"]["data"] == expected(ROWS)
    assert outputs["source"]["data"] == ["full"] * 50
    assert outputs["abstained"]["data"] == [False] * 50
    assert outputs["version"]["data"] == ["1"] * 50


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"inputs": []}, "invalid_input"),
        ({"outputs": [{"name": "logit"}]}, "invalid_input"),
        ({"id": "line\nbreak"}, "invalid_input"),
        ({"id": "x" * 201}, "invalid_input"),
        ({"inputs": [{"name": "size", "datatype": "FP32", "shape": [2], "data": [1]}]},
         "invalid_input"),
        ({"inputs": [{"name": "size", "datatype": "FP32", "shape": [-1], "data": []}]},
         "invalid_input"),
        ({"inputs": [{"name": "size", "datatype": "FP32", "shape": [601], "data": []}]},
         "too_many_rows"),
        ({"inputs": [{"name": "size", "datatype": "INT8", "shape": [1], "data": [300]}]},
         "invalid_input"),
        ({"inputs": [{"name": "size", "datatype": "FP16", "shape": [1], "data": [True]}]},
         "invalid_input"),
        ({"inputs": [{"name": "size", "datatype": "BYTES", "shape": [1], "data": ["x" * 2000]}]},
         "invalid_input"),
        ({"inputs": [{"name": "size", "datatype": "FP32", "shape": [1], "data": [1],
                      "parameters": {"binary_data_size": 4}}]}, "invalid_input"),
    ],
)  # fmt: skip
def test_v2_requests_that_are_none_are_refused_and_not_computed(served, change, code):
    runs = served.deployment(MODEL).live.seconds
    answer = v2(served, json.dumps(tensors(ROWS[:1]) | change).encode())
    assert answer.code == code
    assert answer.json["error"] == answer.json["detail"]
    assert served.deployment(MODEL).live.seconds == runs


def test_v2_binary_requests_that_are_none_are_refused(served):
    def binary(head: dict, rest: bytes, length=None):
        body = json.dumps(head).encode()
        stated = str(len(body)) if length is None else length
        return v2(served, body + rest, {"inference-header-content-length": stated})

    def column(name, datatype, size):
        return {
            "name": name, "datatype": datatype, "shape": [1],
            "parameters": {"binary_data_size": size},
        }  # fmt: skip

    text = struct.pack("<I", 3) + b"red"
    numbers = [column("size", "FP32", 4), column("weight", "FP64", 8)]
    values = struct.pack("<fd", 3.5, 0.25)
    good = {"inputs": [*numbers, column("colour", "BYTES", 7)]}
    answer = binary(good, values + text)
    assert answer.json["outputs"][0]["data"] == expected([ROW])
    for length in ("9" * 5000, "-1", "x", "100000"):
        assert binary(good, values + text, length).code == "malformed_body"
    for odd in (struct.pack("<I", 4) + b"red", struct.pack("<I", 2) + b"red", text[:3] + b"\xff"):
        wrong = {"inputs": [*numbers, column("colour", "BYTES", len(odd))]}
        assert binary(wrong, values + odd).code == "invalid_input"


def test_v2_describes_what_serves(served):
    assert served.ask("GET", "/v2").json["name"] == "aios"
    assert served.ask("GET", "/v2/health/live").status == 200
    assert served.ask("GET", f"/v2/models/{MODEL}/versions/1/ready").json == {"ready": True}
    assert served.ask("GET", "/v2/models/unborn/ready").status == 503
    assert served.ask("GET", f"/v2/models/{MODEL}/versions/9").code == "unknown_version"
    described = served.ask("GET", f"/v2/models/{MODEL}").json
    assert [entry["name"] for entry in described["inputs"]] == [
        "size", "weight", "colour", "at", "id",
    ]  # fmt: skip
    assert served.ask("POST", "/v2/health/live").code == "method_not_allowed"


@pytest.fixture
def port(served, monkeypatch):
    """The gateway behind its own HTTP server."""
    monkeypatch.setattr(GatewayProtocol, "gateway", served.gateway, raising=False)
    config = uvicorn.Config(
        served.application,
        http=GatewayProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ending = asyncio.run_coroutine_threadsafe(server.serve([listening]), served.loop)
        served.until(lambda: server.started)
        yield listening.getsockname()[1]
        server.should_exit = True
        ending.result(30)
    served.gateway.draining = False


def test_a_public_v2_client_works_unchanged(port):
    import tritonclient.http as client

    connected = client.InferenceServerClient(f"127.0.0.1:{port}")
    assert connected.is_server_live()
    assert connected.is_server_ready()
    assert connected.is_model_ready(MODEL)
    assert connected.get_server_metadata()["name"] == "aios"
    assert connected.get_model_metadata(MODEL)["versions"] == ["1"]
    for binary in (True, False):
        kinds = {"size": "FP32", "weight": "FP32", "colour": "BYTES"}
        inputs = [client.InferInput(name, [50], kind) for name, kind in kinds.items()]
        weights = [np.nan if row["weight"] is None else row["weight"] for row in ROWS]
        known = np.array([row["size"] for row in ROWS], np.float32)
        inputs[0].set_data_from_numpy(known, binary_data=binary)
        inputs[1].set_data_from_numpy(np.array(weights, np.float32), binary_data=True)
        colours = np.array([row["colour"] for row in ROWS], object)
        inputs[2].set_data_from_numpy(colours, binary_data=binary)
        outputs = [
            client.InferRequestedOutput(name, binary_data=binary)
            for name in ("probability", "source")
        ]
        answer = connected.infer(MODEL, inputs, outputs=outputs, request_id="mine")
        assert answer.as_numpy("probability").tolist() == expected(ROWS)
        assert answer.get_response()["id"] == "mine"
    connected.close()


def test_a_key_is_answered_once_and_recorded_once(served):
    def ask(row, key):
        return served.predict(MODEL, {"instance": row}, idempotency_key=key, x_request_id=key)

    first, again = ask(ROW, "key-1"), ask(ROW, "key-1")
    assert first.status == 200
    assert first.body == again.body
    other = ask({**ROW, "size": 4}, "key-1")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    # What was refused leaves the key free.
    assert ask({}, "key-2").code == "invalid_input"
    assert ask(ROW, "key-2").status == 200
    recorded = [
        row["request_id"]
        for (content,) in served.rows("SELECT content FROM served_batch WHERE model = :m", m=MODEL)
        for row in decode(bytes(content)).answers.to_pylist()
    ]
    assert [recorded.count(key) for key in ("key-1", "key-2")] == [1, 1]


def test_keys_that_make_no_sense_are_refused(served):
    headers = {"content-type": JSON, "idempotency-key": "k"}
    body = json.dumps({"instances": ROWS[:1]}).encode()
    assert served.ask("POST", f"/v1/models/{MODEL}:stream", body, headers).status == 400
    assert v2(served, json.dumps(tensors(ROWS[:1])).encode(), headers).status == 400


def test_routes_that_are_none_are_told(served):
    assert served.predict("unknown", {"instance": ROW}).code == "unknown_model"
    assert served.predict("unborn", {"instance": ROW}).code == "no_champion"
    assert served.ask("GET", "/v1/models/ÿ:predict").code == "method_not_allowed"
    assert served.ask("GET", "/nowhere").code == "not_found"
    refused = served.ask("POST", "/metrics")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    assert served.ask("HEAD", "/healthz").status == 200
    for header, value in (
        ("aios-deadline-ms", "nan"), ("aios-deadline-ms", "-1"), ("aios-contract", "two"),
        ("aios-privacy", "secret"), ("x-request-id", "x" * 201), ("x-request-id", "a\tb"),
    ):  # fmt: skip
        assert served.predict(MODEL, {"instance": ROW}, **{header: value}).status == 400


def test_what_callers_send_reaches_neither_the_log_nor_other_callers(served, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    row = {**ROW, "id": CANARY}
    bodies = [
        {"instance": row},
        {"instance": {**row, "colour": CANARY}},
        {"instance": {**row, CANARY: 1}},
        f'{{"instance": {CANARY}'.encode(),
    ]
    for body in bodies:
        served.predict(MODEL, body, authorization=f"Bearer {CANARY}")
        served.ask("POST", f"/v2/models/{MODEL}/infer", json.dumps(body, default=str).encode())

    def unforeseen(*_):
        raise ValueError(f"could not convert string to float: '{CANARY}'")

    def foreseen(*_):
        raise ScoringError("It fails.") from ValueError(CANARY)

    for failing in (unforeseen, foreseen):
        with monkeypatch.context() as patched:
            patched.setattr(engine.Engine, "run", failing)
            for answer in (
                served.predict(MODEL, {"instance": row}),
                served.predict(MODEL, {"instance": row}, idempotency_key=str(failing)),
                v2(served, json.dumps(tensors([ROW])).encode()),
            ):
                assert answer.status in (500, 503)
                assert CANARY not in answer.body.decode()
        served.deployment(MODEL).live.breaker.succeeded()
    for place in ("intake.work_of", "streams.work_of", "tensors.columns_of", "gateway.work_of"):
        with monkeypatch.context() as patched:
            patched.setattr(f"aios_platform.serving.{place}", unforeseen)
            body = json.dumps({"instances": [row]}).encode()
            served.predict(MODEL, {"instance": row})
            served.ask("POST", f"/v1/models/{MODEL}:stream", body, {"content-type": JSON})
            v2(served, json.dumps(tensors([ROW])).encode())
    assert "failed: ValueError in" in caplog.text
    assert CANARY not in caplog.text
    assert CANARY not in served.ask("GET", "/metrics").body.decode()
    assert served.predict(MODEL, {"instance": ROW}).status == 200


def test_spans_name_the_model_the_version_and_the_stages(served, spans):
    spans.clear()
    served.predict(MODEL, {"instance": ROW})
    served.predict(MODEL, {"instance": ROW}, idempotency_key="traced")
    served.predict(MODEL, {"instance": {}})
    finished = spans.get_finished_spans()
    requests = [span for span in finished if span.parent is None]
    assert len(requests) == 3
    for request in requests:
        assert request.attributes["aios.model"] == MODEL
    for request in requests[:2]:
        assert request.attributes["aios.version"] == "1"
        stages = [
            span for span in finished
            if span.parent is not None and span.parent.span_id == request.context.span_id
        ]  # fmt: skip
        assert [stage.name for stage in stages] == ["queue", "score"]
        for stage in stages:
            assert stage.start_time <= stage.end_time
        assert stages[0].end_time <= stages[1].start_time
    assert requests[2].attributes["error.type"] == "invalid_input"


def test_the_document_is_openapi_and_describes_every_model(served):
    import jsonschema

    document = served.ask("GET", "/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert f"/v1/models/{MODEL}:predict" in document["paths"]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    request = {"$ref": f"#/components/schemas/{MODEL}.PredictRequest", **document}
    check = jsonschema.Draft202012Validator(request)
    check.validate({"instance": ROW})
    check.validate({"instances": ROWS})
    assert not check.is_valid({"instance": ROW, "instances": ROWS})
    reply = {"$ref": f"#/components/schemas/{MODEL}.PredictReply", **document}
    for body in ({"instance": ROW}, {"instances": ROWS}):
        jsonschema.Draft202012Validator(reply).validate(served.predict(MODEL, body).json)
    page = served.ask("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert f"/v1/models/{MODEL}:predict" in page.body.decode()


def test_prometheus_can_read_the_metrics(served):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    page = served.ask("GET", "/metrics").body
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
