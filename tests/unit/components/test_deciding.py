"""Evidence of a retrain decision, gathered from a real ledger and a real artifact root."""

import json
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from aios_platform.cli import main
from aios_platform.components.model_lifecycle.deciding import decide_on
from aios_platform.components.model_lifecycle.documents import write_document
from aios_platform.components.model_lifecycle.faults import search_faults, without_faults
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.state import GAVE_UP, VERDICT
from aios_platform.contracts.decisions import Decision
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.errors import LifecycleError
from aios_platform.ledger.champions import promote
from aios_platform.ledger.entries import append, entries
from aios_platform.monitoring.drift import DriftReport, DriftStatus
from aios_platform.monitoring.faults import FaultKind
from aios_platform.monitoring.performance import Performance, PerformanceStatus
from tests.unit.contracts.test_declaration import MINIMAL
from tests.verdicts import verdict

pytestmark = pytest.mark.postgres
NOW = datetime(2014, 12, 1, tzinfo=UTC)


@pytest.fixture
def names(tmp_path) -> Names:
    retrain = {"degradation": 0.02, "cool_down_windows": 1, "confirm_windows": 2, "new_data": 2.0}
    declared = MINIMAL | {"name": "flight_delay", "retrain": retrain}
    return Names(ModelDeclaration.model_validate(declared), tmp_path)


@pytest.fixture
def write_verdict(own_database, names):
    def write(candidate, champion, decision, exam, gain=0.0):
        judged = verdict(names.model, candidate, champion, decision=decision).model_copy(
            update={
                "exam_windows": (exam,),
                "champion_metrics": {"roc_auc": 0.77 - gain} if champion else {},
                "candidate_by_window": {exam: {"roc_auc": 0.77}},
            }
        )
        with own_database.begin() as connection:
            append(
                connection, kind=VERDICT, subject=names.model, key=f"v{candidate}{exam}",
                payload={"cause": "why", "verdict": judged.model_dump(mode="json")},
            )  # fmt: skip
        return judged

    return write


@pytest.fixture
def watched(own_database, names, store, write_verdict):
    """A champion trained through 2013-09, and a way to decide on a window of its."""
    from aios_platform.contracts.datasets import FeatureSchema, TrainingSet
    from aios_platform.features.pinned_sets import remember

    frame = store.write("flight_delay/training_frame", "2013-09", pa.table({"x": range(5000)}))
    record = TrainingSet(
        frames=(frame,), exam=(), features=FeatureSchema(fields=()), service_digest="s",
        as_of="2013-10-02", cells_replayed=0,
    )  # fmt: skip
    remember(store, names.model, record)
    promote(
        own_database,
        write_verdict("1", None, Decision.PROMOTE, "2013-12"),
        model_digest="d" * 64,
        run_id="r",
        training_set_digest=record.digest,
        trained_through="2013-09",
    )

    for key in ("2013-10", "2013-11", "2013-12"):
        deliver(names, store, key)

    def decide(key, value, scale=1.0, rows=400, revision=1):
        deliver(names, store, key, scale, rows)
        performance = Performance(
            model=names.model, window=key, status=PerformanceStatus.MEASURED, metric="roc_auc",
            metrics={"roc_auc": value}, low=value - 0.01, high=value + 0.01, confidence=0.95,
            model_versions=("1",), predictions=100, labels=100, matched=100,
            unlabelled_predictions=0, unpredicted_labels=0, repeated_labels=0, as_of=NOW, reason="",
            revision=revision,
        )  # fmt: skip
        drift = DriftReport(
            model=names.model, window=key, status=DriftStatus.STABLE, rows=100, reference_rows=100,
            features=(), prediction=None, share=0.1, weighted_share=0.05, share_bound=0.5,
            reason="", model_version="1",
        )  # fmt: skip
        write_document(names, store, "performance", key, performance)
        write_document(names, store, "drift", key, drift)
        window = names.declaration.windows.window(key)
        return decide_on(names, store, own_database, window, NOW)

    return decide


def test_degraded_windows_add_up_and_a_faulty_one_between_them_does_not_count(watched):
    assert watched("2014-01", 0.70).cause == "unconfirmed"
    fault = watched("2014-02", 0.50, scale=25.4)
    assert (fault.cause, fault.alarm, fault.degraded) == ("data_fault", True, False)
    assert watched("2014-03", 0.70).cause == "degradation"
    # Down to 0.012 below: hysteresis keeps it degraded, recovery ends it.
    assert watched("2014-04", 0.758).cause == "degradation"
    assert watched("2014-05", 0.77).cause == "healthy"
    assert watched("2014-06", 0.70).cause == "unconfirmed"


def test_trainings_that_were_refused_are_read_from_the_ledger(watched, write_verdict):
    write_verdict("2", "1", Decision.REJECT, "2014-01", gain=-0.01)
    write_verdict("3", "1", Decision.REJECT, "2014-02", gain=0.01)
    # The same version, examined again by hand: no further training.
    write_verdict("3", "1", Decision.REJECT, "2014-04", gain=0.01)
    watched("2014-04", 0.70)
    decision = watched("2014-05", 0.70)
    assert decision.cause == "back_off"
    assert decision.evidence["trainings"] == 3
    assert decision.evidence["trainings_in_vain"] == 2
    assert decision.evidence["windows_since_training"] == 3
    assert watched("2014-06", 0.70).cause == "degradation"


def test_a_promotion_that_gained_nothing_did_not_help(watched, write_verdict):
    write_verdict("2", "1", Decision.PROMOTE, "2014-01", gain=-0.001)
    assert watched("2014-02", 0.77).evidence["last_training_helped"] == 0
    write_verdict("4", "1", Decision.PROMOTE, "2014-02", gain=0.004)
    assert watched("2014-03", 0.77).evidence["last_training_helped"] == 1


def test_new_rows_are_counted_from_the_stored_windows(watched, names, store):
    for key, rows in (("2013-09", 999), ("2013-10", 3000), ("2013-11", 2000), ("2013-12", 2500)):
        deliver(names, store, key, rows=rows)
    decision = watched("2014-01", 0.77, rows=2500)
    assert (decision.cause, decision.evidence["new_rows"]) == ("new_data", 10_000)
    assert decision.evidence["training_rows"] == 5000


def test_rows_that_nobody_may_train_on_are_no_new_data(watched, names, store):
    for key, rows, scale in (
        ("2013-10", 3000, 1.0), ("2013-11", 2000, 1.0), ("2013-12", 2500, 25.4),
    ):  # fmt: skip
        deliver(names, store, key, scale, rows)
        search_faults(names, store, key)
    decision = watched("2014-01", 0.77, rows=2500)
    assert (decision.cause, decision.evidence["new_rows"]) == ("healthy", 7_500)


def test_a_decision_stands_and_its_row_names_its_evidence(watched, own_database, store):
    first = watched("2014-01", 0.77)
    assert watched("2014-01", 0.77) == first
    [row] = entries(own_database, kind="retrain_decision")
    assert set(row.payload["documents"].values()) == set(row.evidence)
    kept = json.loads(store.get(row.payload["documents"]["performance"], ".json"))
    assert kept["metrics"] == {"roc_auc": 0.77}


def test_restated_figures_lead_to_another_decision_and_the_first_stays_on_record(
    watched, own_database
):
    first = watched("2014-01", 0.70)
    assert (first.cause, first.revision) == ("unconfirmed", 1)
    second = watched("2014-01", 0.77, revision=2)
    assert (second.cause, second.revision) == ("healthy", 2)
    rows = entries(own_database, kind="retrain_decision")
    assert [row.payload["decision"]["cause"] for row in rows] == ["healthy", "unconfirmed"]
    assert watched("2014-02", 0.70).cause == "unconfirmed", "the newest one of January counts"
    assert watched("2014-01", 0.77, revision=2) == second


def test_a_version_that_is_no_longer_live_asks_for_nothing(watched, own_database, write_verdict):
    watched("2014-01", 0.70)
    promote(
        own_database,
        write_verdict("2", "1", Decision.PROMOTE, "2014-01", gain=0.01),
        model_digest="d" * 64, run_id="r", training_set_digest="7" * 64, trained_through="2013-12",
    )  # fmt: skip
    decision = watched("2014-02", 0.50)
    assert (decision.action, decision.cause) == ("hold", "superseded")
    assert decision.degraded, "it is written down all the same"


def test_a_training_that_was_given_up_counts_as_one_in_vain(watched, own_database, names):
    watched("2014-01", 0.70)
    wanted = watched("2014-02", 0.70)
    assert wanted.cause == "degradation"
    give_up(own_database, names, "decision on window 2014-02")
    waits = watched("2014-03", 0.70)
    assert waits.cause == "back_off"
    assert (waits.evidence["trainings"], waits.evidence["trainings_in_vain"]) == (2, 1)
    assert waits.evidence["windows_since_training"] == 1
    assert watched("2014-04", 0.70).cause == "degradation"


def give_up(database, names, cause):
    with database.begin() as connection:
        append(
            connection, kind=GAVE_UP, subject=names.model, key=f"{GAVE_UP}:{cause}",
            payload={"cause": cause, "job": "retrain", "first": None, "last": None, "runs": [],
                     "reason": "3 runs in a row failed."},
        )  # fmt: skip


def test_nothing_is_decided_before_maturity_nor_without_having_been_watched(
    watched, names, store, own_database
):
    watched("2014-01", 0.77)
    window = names.declaration.windows.window("2014-11")
    assert decide_on(names, store, own_database, window, NOW) is None
    with pytest.raises(LifecycleError, match="no performance of flight_delay for 2014-07"):
        decide_on(names, store, own_database, names.declaration.windows.window("2014-07"), NOW)


def deliver(names, store, key, scale=1.0, rows=400):
    import numpy as np

    generator = np.random.default_rng(int(key[-2:]))
    start = names.declaration.windows.window(key).start
    store.write(
        names.raw_rows,
        key,
        pa.table(
            {
                "id": [f"{key}-{n}" for n in range(rows)],
                "at": pa.array([start] * rows, pa.timestamp("us", "UTC")),
                "size": generator.gamma(4, 20, rows) * scale,
                "broke": generator.random(rows) < 0.2,
                "broke_at": pa.array([start] * rows, pa.timestamp("us", "UTC")),
            }
        ),
    )


def test_a_fault_is_found_and_does_not_become_the_measure_of_what_follows(names, store):
    for key in ("2013-01", "2013-02", "2013-03"):
        deliver(names, store, key)
        assert search_faults(names, store, key).faults == ()
    for key in ("2013-04", "2013-05"):
        deliver(names, store, key, scale=25.4)
        report = search_faults(names, store, key)
        assert [fault.kind for fault in report.faults] == [FaultKind.UNIT]
        assert report.compared_with == ("2013-01", "2013-02", "2013-03")
    five = [f"2013-{month:02}" for month in range(1, 6)]
    assert without_faults(names, store, five) == five[:3]
    deliver(names, store, "2013-06")
    assert search_faults(names, store, "2013-06").faults == ()
    # Mended and delivered again.
    deliver(names, store, "2013-05")
    assert search_faults(names, store, "2013-05").faults == ()
    assert without_faults(names, store, five) == [*five[:3], "2013-05"]


def test_windows_that_nobody_searched_are_searched_before_a_model_is_trained_on_them(names, store):
    keys = ["2013-01", "2013-02", "2013-03", "2013-04"]
    for key in keys:
        deliver(names, store, key, scale=25.4 if key == "2013-03" else 1.0)
    assert without_faults(names, store, keys) == ["2013-01", "2013-02", "2013-04"]
    exempt = names.declaration.monitoring.model_copy(update={"fault_exempt": ("toys.size",)})
    declared = names.declaration.model_copy(update={"monitoring": exempt})
    allowed = Names(declared, names.folder)
    assert without_faults(allowed, store, keys) == keys


def test_the_command_lists_decisions_in_words_and_as_json(
    watched, own_database, monkeypatch, capsys
):
    monkeypatch.setattr("aios_platform.database.database", lambda: own_database)
    monkeypatch.setattr("aios_platform.telemetry.configure", lambda _: None)

    def aios(*arguments):
        monkeypatch.setattr(sys, "argv", ["aios", "decisions", "flight_delay", *arguments])
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().out

    assert "Nothing was decided" in aios()
    watched("2014-01", 0.77)
    watched("2014-02", 0.5, scale=25.4)
    said = aios()
    assert "2014-02  version 1: leave it as it is (data fault)  ALARM" in said
    assert "millimetres" in said
    assert said.index("2014-02") < said.index("2014-01")
    newest = json.loads(aios("--json", "--limit", "1"))
    assert (newest["window"], newest["cause"], newest["version"]) == ("2014-02", "data_fault", "1")
