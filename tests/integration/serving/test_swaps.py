"""Versions come and go while requests are on their way."""

import asyncio
import gc
import json
import uuid
import weakref

import pyarrow as pa
import pytest

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.rollouts import RolloutMode
from aios_platform.inference.session import Session
from aios_platform.serving import loading, streams, watching
from tests.gateways import JSON, local_gateway, metric, roll_out
from tests.served_models import FEATURES, ROW, declaration, make_champion, network, training_set

pytestmark = pytest.mark.postgres

ONE, TWO = network(seed=1), network(seed=2)
CACHED = {"cache": {"entries": 100}}


def expected(content: bytes) -> float:
    return float(Session(content).predict(pa.Table.from_pylist([ROW]))[0])


def closed(version) -> bool:
    try:
        version.executor.submit(int)
    except RuntimeError:
        return True
    return False


@pytest.fixture
def model() -> str:
    return f"m_{uuid.uuid4().hex[:8]}"


def test_promotions_and_rollbacks_are_followed_and_caches_stay_with_their_version(
    database, store, model
):
    def probability(gateway) -> float:
        return gateway.predict(model, {"instance": ROW}).json["prediction"]["probability"]

    with local_gateway(database, store, [declaration(model, **CACHED)]) as gateway:
        assert gateway.predict(model, {"instance": ROW}).code == "no_champion"
        assert gateway.ask("GET", "/readyz").status == 503
        make_champion(database, store, ONE, model=model, version="1")
        gateway.serves(model, "1")
        assert gateway.ask("GET", "/readyz").status == 200
        assert [probability(gateway) for _ in range(2)] == [expected(ONE)] * 2
        make_champion(database, store, TWO, model=model, version="2")
        gateway.serves(model, "2")
        assert [probability(gateway) for _ in range(2)] == [expected(TWO)] * 2
        make_champion(database, store, ONE, model=model, version="1")
        gateway.serves(model, "1")
        assert probability(gateway) == expected(ONE)
        gateway.until(lambda: metric("aios_live_version", model=model, version="2") == 0)
        assert metric("aios_live_version", model=model, version="1") == 1
    assert metric("aios_swaps_total", model=model, outcome="done") == 3
    assert metric("aios_cache_hits_total", model=model, version="2") == 1


def test_nothing_is_kept_of_a_version_that_went(database, store, model):
    make_champion(database, store, ONE, model=model)
    with local_gateway(database, store, [declaration(model, fallback=[])]) as gateway:
        old = weakref.ref(gateway.deployment(model).live)
        gateway.predict(model, {"instance": ROW})
        make_champion(database, store, TWO, model=model, version="2")
        gateway.serves(model, "2")
        gateway.predict(model, {"instance": ROW})
        gateway.until(lambda: gc.collect() >= 0 and old() is None)


def test_a_version_without_its_bytes_leaves_the_old_one_serving(database, store, model, tmp_path):
    from aios_platform.artifacts import ArtifactStore

    make_champion(database, store, ONE, model=model)
    with local_gateway(database, store, [declaration(model)]) as gateway:
        elsewhere = ArtifactStore(str(tmp_path / "elsewhere"))
        make_champion(database, elsewhere, TWO, model=model, version="2")
        gateway.until(lambda: metric("aios_swaps_total", model=model, outcome="failed") == 1)
        assert gateway.predict(model, {"instance": ROW}).json["version"] == "1"
        gateway.until(lambda: gateway.rows("SELECT 1 FROM alert WHERE subject = :m", m=model) != [])
        assert gateway.ask("GET", "/readyz").json["models"][model]["version"] == "1"


FEWER = FeatureSchema(fields=FEATURES.fields[1:])


@pytest.mark.parametrize("other", [{"service": "5" * 64}, {"features": FEWER}])
def test_a_version_of_other_features_is_neither_tried_nor_fallen_back_to(
    database, store, model, caplog, other
):
    other = training_set(model=model, **other)
    content = network(other.features, seed=3)
    make_champion(database, store, content, model=model, version="0", pinned=other)
    make_champion(database, store, ONE, model=model)
    with local_gateway(database, store, [declaration(model)]) as gateway:
        roll_out(
            database, model, content, store,
            mode=RolloutMode.SHADOW, training_set_digest=other.digest,
        )  # fmt: skip
        gateway.until(lambda: "takes other features than the live version" in caplog.text)
        assert gateway.deployment(model).trial is None
        assert gateway.deployment(model).loaded.fallbacks.previous is None


def test_a_version_whose_inputs_are_declared_no_more_is_not_served(database, store, model, caplog):
    declared = declaration(model)
    table = declared.source.tables["toys"]
    columns = {name: column for name, column in table.columns.items() if name != "weight"}
    source = declared.source.model_copy(
        update={"tables": {"toys": table.model_copy(update={"columns": columns})}}
    )
    make_champion(database, store, ONE, model=model)
    with local_gateway(database, store, [declared.model_copy(update={"source": source})]):
        assert "takes 'weight' from requests, which is declared no more" in caplog.text


def test_a_version_of_another_task_than_declared_is_not_served(database, store, model, caplog):
    number = declaration(model).model_copy(update={"task": "regression"})
    make_champion(database, store, ONE, model=model)
    with local_gateway(database, store, [number]):
        told = "The model answers ['probability']; the declaration says ['value']"
        assert told in caplog.text


def test_whatever_keeps_a_version_from_being_loaded_is_an_alarm_and_tried_again(
    database, store, model, monkeypatch, caplog
):
    monkeypatch.setattr(watching, "RETRY_SECONDS", 0.01)

    def unforeseen(*_):
        raise TypeError("unforeseen")

    make_champion(database, store, ONE, model=model)
    with local_gateway(database, store, [declaration(model)]) as gateway:
        with monkeypatch.context() as patched:
            patched.setattr(loading, "input_contracts", unforeseen)
            make_champion(database, store, TWO, model=model, version="2")
            gateway.until(lambda: metric("aios_swaps_total", model=model, outcome="failed") > 1)
            assert gateway.predict(model, {"instance": ROW}).json["version"] == "1"
            assert "keeps serving: TypeError in" in caplog.text
        gateway.serves(model, "2")


def test_a_stream_goes_on_with_the_version_that_serves_then(database, store, model, monkeypatch):
    monkeypatch.setattr(streams, "PART_ROWS", 2)
    make_champion(database, store, ONE, model=model)
    with local_gateway(database, store, [declaration(model)]) as gateway:
        old = gateway.deployment(model)
        old.live.inline = False
        sent = []

        async def send(message):
            sent.append(message)
            if len(sent) == 2:
                # The reader is slow, and meanwhile another version comes and the old one goes.
                make_champion(database, store, TWO, model=model, version="2")
                while not closed(old.live):
                    await asyncio.sleep(0.01)

        gateway.ask(
            "POST",
            f"/v1/models/{model}:stream",
            json.dumps({"instances": [ROW] * 7}).encode(),
            {"content-type": JSON, "x-request-id": "long"},
            send=send,
        )
    lines = [json.loads(line) for m in sent for line in m.get("body", b"").splitlines()]
    assert lines[-1] == {"done": True, "rows": 7, "request_id": "long"}
    assert [line["place"] for line in lines[:-1]] == list(range(7))
    assert [line["version"] for line in lines[:-1]] == ["1"] * 2 + ["2"] * 5
