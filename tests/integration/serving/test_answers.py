"""Who answers a row: a tier, the cache, another hop, or nobody; and how sure it is."""

import time
import uuid

import pyarrow as pa
import pytest

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.inference.session import Session
from aios_platform.serving import version as versions
from tests.gateways import local_gateway, metric, roll_out
from tests.served_models import FEATURES, ROW, brittle, declaration, make_champion, network, pack

pytestmark = pytest.mark.postgres

FULL, FAST = network(seed=1), network(seed=8)
ROWS = [{"size": n / 16, "weight": n / 64, "colour": "blue"} for n in range(60)]
ONE_INPUT = FeatureSchema(fields=FEATURES.fields[:1])
SIMPLE = network(ONE_INPUT, seed=5, hidden=())
BAND = {"low": 0.3, "high": 0.7}
TIERS = [
    {
        "name": "fast", "model": "int8", "escalate": BAND,
        "latency_ms": 1, "cost": 0.2, "privacy": "internal",
    },
    {"name": "full", "latency_ms": 5},
]  # fmt: skip


def expected(content: bytes, rows=ROWS) -> list[float]:
    return Session(content).predict(pa.Table.from_pylist(rows)).tolist()


def sources(answer) -> list[str]:
    return [row["source"] for row in answer.json["predictions"]]


@pytest.fixture
def model() -> str:
    return f"m_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def serve(database, store, model):
    """A gateway of one model; what its package has is given under `packed`."""

    def start(content=FULL, packed=None, **serving):
        if packed is not None:
            pack(store, content, model=model, **packed)
        make_champion(database, store, content, model=model)
        return local_gateway(database, store, [declaration(model, **serving)])

    return start


def test_the_fast_tier_answers_what_it_is_sure_of_and_headers_choose(serve, model):
    with serve(packed={"fast": FAST}, tiers=TIERS, cache={"entries": 1000}) as gateway:

        def ask(**headers):
            return gateway.predict(model, {"instances": ROWS}, **headers)

        fast, full = expected(FAST), expected(FULL)
        unsure = [BAND["low"] <= probability <= BAND["high"] for probability in fast]
        assert 5 < sum(unsure) < 55
        # Bounds first: what they gave must not be given to those without.
        only_fast = ask(Aios_Latency_Ms="2")
        answer = ask()
        only_full = ask(Aios_Privacy="restricted")
        cheap = ask(Aios_Cost="0.5")
        assert ask(Aios_Cost="0.1").code == "invalid_input"
        cached = ask()
        mixed = gateway.run(_together(gateway, model))
    assert sources(only_fast) == ["fast"] * 60
    assert [row["probability"] for row in only_fast.json["predictions"]] == pytest.approx(fast)
    assert sources(answer) == ["full" if escalated else "fast" for escalated in unsure]
    chosen = [b if escalated else a for a, b, escalated in zip(fast, full, unsure, strict=True)]
    assert [row["probability"] for row in answer.json["predictions"]] == pytest.approx(chosen)
    assert sources(only_full) == ["full"] * 60
    assert sources(cheap) == sources(cached) == ["cache"] * 60
    assert all(row["cached"] for row in cached.json["predictions"])
    assert [row["probability"] for row in cached.json["predictions"]] == [
        row["probability"] for row in answer.json["predictions"]
    ]
    assert [[row["source"] for row in each.json["predictions"]] for each in mixed] == [
        ["fast"], ["full"],
    ]  # fmt: skip


async def _together(gateway, model):
    """Two requests with bounds of their own in one batch."""
    import asyncio

    row = {"size": 500.5, "weight": 1.0, "colour": "red"}
    asked = [
        gateway.predicted(model, {"instances": [row]}, **bounds)
        for bounds in ({"Aios-Cost": "0.5"}, {"Aios-Privacy": "restricted"})
    ]
    return await asyncio.gather(*asked)


def test_a_candidate_without_the_tier_that_a_request_needs_is_passed_over(
    serve, database, store, model
):
    with serve(packed={"fast": FAST}, tiers=TIERS) as gateway:
        roll_out(database, model, network(seed=9), store, step=3)
        gateway.until(lambda: gateway.deployment(model).trial is not None)
        assert gateway.predict(model, {"instance": ROW}).json["version"] == "candidate"
        bound = gateway.predict(model, {"instance": ROW}, Aios_Latency_Ms="2").json
    assert (bound["version"], bound["prediction"]["source"]) == ("1", "fast")


def test_equal_rows_are_scored_once_and_again_when_they_are_old(serve, model, monkeypatch):
    clock = time.monotonic
    with serve(cache={"entries": 2, "ttl_seconds": 60}) as gateway:
        twice = gateway.predict(model, {"instances": [ROW, ROW]})
        again = gateway.predict(model, {"instance": ROW})
        # Two more take the room of the first.
        gateway.predict(model, {"instances": ROWS[:2]})
        gone = gateway.predict(model, {"instance": ROW})
        monkeypatch.setattr(versions.time, "monotonic", lambda: clock() + 61)
        old = gateway.predict(model, {"instance": ROW}, Aios_Deadline_Ms="1000")
    assert sources(twice) == ["full", "full"]
    assert again.json["prediction"]["source"] == "cache"
    assert gone.json["prediction"]["source"] == "full"
    assert old.json["prediction"]["source"] == "full"
    assert metric("aios_cache_hits_total", model=model, version="1") == 1
    assert metric("aios_cache_misses_total", model=model, version="1") == 6


@pytest.mark.parametrize("inline", [True, False])
def test_the_previous_version_answers_and_the_breaker_opens_and_closes(
    serve, database, store, model, inline
):
    with serve(breaker={"failures": 2, "open_seconds": 0.2}) as gateway:
        broken = brittle()
        make_champion(database, store, broken, model=model, version="2")
        gateway.serves(model, "2")
        deployment = gateway.deployment(model)
        deployment.loaded.fallbacks.previous.inline = inline
        for _ in range(3):
            answer = gateway.predict(model, {"instance": ROW}).json
            assert answer["version"] == "1"
            assert answer["prediction"]["source"] == "previous"
            assert answer["prediction"]["fallback"] is True
            [probability] = expected(FULL, [ROW])
            assert answer["prediction"]["probability"] == pytest.approx(probability, abs=1e-6)
        assert deployment.live.breaker.is_open
        assert metric("aios_breaker_open", model=model, version="2") == 1
        # Zeros it can score; once it is tried again, it is trusted again.
        harmless = {"size": 0, "weight": 0, "colour": "red"}
        gateway.until(lambda: gateway.predict(model, {"instance": harmless}).json["version"] == "2")
        assert not deployment.live.breaker.is_open
    assert metric("aios_fallbacks_total", model=model, hop="previous") >= 3
    assert metric("aios_rows_total", model=model, version="2", source="previous") >= 3


def test_after_the_previous_version_comes_the_simple_model_then_the_default_then_nobody(
    serve, model
):
    broken = brittle()
    simple = {"simple": SIMPLE, "inputs": ("size",)}
    with serve(broken, packed=simple, safe_default=0.25) as gateway:
        answer = gateway.predict(model, {"instances": [ROW, {**ROW, "size": 40}]}).json
    assert [row["source"] for row in answer["predictions"]] == ["simple"] * 2
    found = [row["probability"] for row in answer["predictions"]]
    assert found == pytest.approx(
        Session(SIMPLE).predict(pa.table({"size": [ROW["size"], 40.0]})).tolist(), abs=1e-6
    )
    assert metric("aios_fallbacks_total", model=model, hop="simple") == 2


@pytest.mark.parametrize("safe", [0.25, None])
def test_the_default_is_the_last_hop(serve, model, safe):
    with serve(brittle(), safe_default=safe) as gateway:
        answer = gateway.predict(model, {"instance": ROW})
    if safe is None:
        assert (answer.status, answer.code) == (503, "no_answer")
        assert metric("aios_requests_total", model=model, version="1", code="503") == 1
        return
    assert answer.json["prediction"] == {"probability": safe, "source": "default", "fallback": True}
    assert metric("aios_fallbacks_total", model=model, hop="default") == 1


def test_an_unsure_answer_is_the_safe_default_and_goes_to_the_review_queue(serve, model):
    uncertainty = {"uncertainty": {"abstain_band": BAND}, "safe_default": 0.125}
    with serve(**uncertainty) as gateway:
        answer = gateway.predict(
            model,
            {"instances": [{**row, "id": f"r{place}"} for place, row in enumerate(ROWS)]},
            x_request_id="unsure",
        ).json["predictions"]
        # To the model a missing weight is 0.
        frame = pa.Table.from_pylist([{**row, "weight": row["weight"] or None} for row in ROWS])
        arrow = gateway.ask(
            "POST",
            f"/v1/models/{model}:predict",
            _stream(frame),
            {"content-type": "application/vnd.apache.arrow.stream", "x-request-id": "frame"},
        )
    full = expected(FULL)
    unsure = [place for place, found in enumerate(full) if BAND["low"] <= found <= BAND["high"]]
    assert 0 < len(unsure) < 60
    for place, row in enumerate(answer):
        if place in unsure:
            assert row["abstained"] is True
            assert (row["probability"], row["source"]) == (0.125, "abstained")
        else:
            assert row["probability"] == pytest.approx(full[place], abs=1e-6)
            assert "abstained" not in row
    table = pa.ipc.open_stream(arrow.body).read_all()
    assert [p for p, told in enumerate(table["abstained"].to_pylist()) if told] == unsure
    kept = gateway.rows(
        "SELECT request_id, place, row_id, inputs, probability FROM review_item WHERE model = :m "
        "ORDER BY request_id DESC, place",
        m=model,
    )
    assert [row[:2] for row in kept] == [(r, p) for r in ("unsure", "frame") for p in unsure]
    for _, place, _, inputs, probability in kept:
        assert inputs["size"] == ROWS[place]["size"]
        assert inputs["colour"] == "blue"
        assert (inputs["weight"] or 0.0) == ROWS[place]["weight"]
        assert probability == pytest.approx(full[place], abs=1e-6)
    assert kept[0][2] == f"r{unsure[0]}"
    assert metric("aios_abstentions_total", model=model, version="1") == 2 * len(unsure)


def test_labels_that_cannot_be_ruled_out_are_told(serve, model):
    with serve(packed={"quantiles": (0.6, 0.55)}, safe_default=0.5) as gateway:
        answer = gateway.predict(model, {"instances": ROWS}).json["predictions"]
    for row in answer:
        # Nonconformity of a label is what the model gives the other one.
        labels = [False] * (row["probability"] <= 0.6) + [True] * (1 - row["probability"] <= 0.55)
        assert row["labels"] == labels


def test_a_deadline_that_passed_is_answered_with_504_and_not_computed(serve, model):
    with serve(batching={"max_delay_ms": 20}) as gateway:
        late = gateway.predict(model, {"instance": ROW}, Aios_Deadline_Ms="0.001")
        assert (late.status, late.code) == (504, "deadline_exceeded")
        assert gateway.predict(model, {"instance": ROW}).status == 200
    assert metric("aios_batch_rows_sum", model=model, version="1") == 1


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
