"""A replay of the small model: the real jobs with the clock of then, once and for all."""

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest

from aios_platform.components.model_lifecycle.backfilling import backfill, plan_backfill
from aios_platform.contracts.replays import Replay
from aios_platform.errors import LifecycleError
from aios_platform.features.pinned_sets import recall
from aios_platform.ledger.entries import entry
from aios_platform.readiness.collecting import score_of
from aios_platform.readiness.scoring import COUNTS_FOR
from aios_platform.replay.drive import drive
from aios_platform.replay.progress import AskedTraining, write_progress
from aios_platform.replay.yardstick_trainer import keep_training_set
from tests.e2e import small_flights
from tests.e2e.replaying import FIRST, LAST, Replaying, small

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def found(grown) -> Replay:
    return grown.found


def test_the_model_bootstraps_scores_measures_and_trains_again(calm, found, grown):
    jobs = [(run.clock.strftime("%m-%d"), str(run.job)) for run in calm.progress.runs]
    assert jobs == [
        ("05-01", "score"),
        ("05-03", "measure"),
        ("05-03", "retrain"),
        ("05-03", "score"),
        ("06-01", "score"),
        ("06-03", "measure"),
        ("06-03", "retrain"),
        ("07-01", "score"),
        ("07-03", "measure"),
        *jobs[9:],
    ]
    assert [w.window for w in found.windows] == ["2013-04", "2013-05", "2013-06"]
    assert found.windows[0].live is None, "nothing was live yet"
    assert found.windows[0].afterwards.version == "1"
    [training] = found.windows[1].trainings
    assert training.cause == "decision on window 2013-05"
    assert training.verdict in ("promote", "reject", "inconclusive")
    assert found.windows[1].decision.cause == "new_data"
    assert found.runs == len(calm.progress.runs) == grown.runs


def test_every_run_is_one_of_dagsters_with_the_clock_of_then_in_its_tags(calm):
    for done in calm.progress.runs:
        run = calm.instance.get_run_by_id(done.run_id)
        assert run.is_success
        assert run.tags["aios/as_of"] == done.clock.isoformat()
        assert run.tags["aios/cause"] == done.cause
        assert run.job_name == calm.names.job(done.job)


def test_nothing_that_became_known_later_was_in_the_store_when_it_was_used(calm):
    """Flights that land after the window's end are in it, without their landing."""
    window = calm.names.declaration.windows.window("2013-05")
    early, late = calm.versions(calm.names.raw_rows, "2013-05")
    columns = ["flight_id", "landed_at", "arrival_delay", "is_late"]
    then, later = (calm.stores.artifacts.read(version, columns) for version in (early, late))
    assert then["flight_id"] == later["flight_id"]
    assert pc.max(then["landed_at"]).as_py() <= window.end < pc.max(later["landed_at"]).as_py()
    assert then["is_late"].null_count > later["is_late"].null_count
    assert pc.is_null(then["is_late"]) == pc.is_null(then["arrival_delay"])
    [scored] = calm.versions(calm.names.predictions, "2013-05")
    frame = next(
        v for v in calm.versions(calm.names.frames, "2013-05")
        if scored.inputs.get(v.dataset) == v.digest
    )  # fmt: skip
    assert early.digest in frame.inputs.values()
    assert late.digest not in frame.inputs.values()


def test_a_window_that_is_read_again_and_brings_nothing_new_is_no_new_version(calm):
    # When it closed, when its labels had come, and with those of June.
    assert len(calm.versions(calm.names.raw_rows, "2013-05")) == 2


def test_each_window_is_predicted_once_by_the_version_that_was_live(calm):
    live = {}
    for row in calm.rows("promotion"):
        champion = row.payload["champion"]
        live[datetime.fromisoformat(champion["live_from"])] = champion["version"]
    for key in ("2013-05", "2013-06"):
        [scored] = calm.versions(calm.names.predictions, key)
        end = calm.names.declaration.windows.window(key).end
        assert scored.inputs["model_version"] == [v for at, v in live.items() if at <= end][-1]
        assert scored.rows == calm.versions(calm.names.raw_rows, key)[-1].rows
    assert len(set(live.values())) >= 2, "June was scored by the version trained in June"


def test_clean_windows_raise_no_alert(calm, found):
    assert calm.alerts() == []
    assert all(window.faults == () for window in found.windows)


def test_the_figures_are_those_of_sklearn_on_the_same_rows(calm, found):
    from sklearn.metrics import roc_auc_score

    from aios_platform.inference.session import Session

    store, names = calm.stores.artifacts, calm.names
    window = found.windows[2]
    [scored] = calm.versions(names.predictions, "2013-06")
    predictions = store.read(scored).to_pandas().set_index("flight_id")
    raw = calm.versions(names.raw_rows, "2013-06")[-1]
    truth = store.read(raw, ["flight_id", "is_late"]).to_pandas().set_index("flight_id")
    truth = truth["is_late"].dropna().astype(bool)
    frame = store.read(
        next(v for v in calm.versions(names.frames, "2013-06")
             if scored.inputs.get(v.dataset) == v.digest)
    )  # fmt: skip
    first = calm.rows("promotion")[0].payload["champion"]["model_digest"]
    never = dict(
        zip(
            frame["flight_id"].to_pylist(),
            Session(store.get(first, ".onnx"), digest=first).predict(frame),
            strict=True,
        )
    )
    live = roc_auc_score(truth, predictions["probability"].loc[truth.index])
    other = roc_auc_score(truth, [never[key] for key in truth.index])
    assert window.labelled == len(truth)
    assert window.live.value == pytest.approx(live, abs=1e-6)
    assert window.never.value == pytest.approx(other, abs=1e-6)
    assert window.against_never.value == pytest.approx(live - other, abs=1e-6)
    assert window.against_never.low <= window.against_never.value <= window.against_never.high


def test_the_yardsticks_are_the_first_version_and_one_trained_with_every_window(calm, found):
    may, june = found.windows[1:]
    assert (may.never.version, june.never.version) == ("1", "1")
    assert may.against_never.value == 0, "in May the first version was live"
    assert may.every.trained_through == "2013-03"
    assert june.every.trained_through == "2013-04"
    # The loop trained with May as well: it is the very same model.
    [trained] = [each for each in calm.progress.every if each.window == "2013-05"]
    assert trained.shared
    assert june.against_every.value == pytest.approx(june.live.value - june.every.value, abs=1e-6)
    mean = (may.against_never.value + june.against_never.value) / 2
    assert found.against_never.value == pytest.approx(mean)
    assert found.against_never.windows == 2


def test_a_yardstick_that_was_not_trained_yet_is_trained_when_the_replay_goes_on(calm):
    model, store, before = calm.names.model, calm.stores.artifacts, calm.noted()
    [loops_own] = [each for each in before.every if each.window == "2013-05"]
    keep_training_set(store, model, recall(store, model, loops_own.training_set_digest))
    asked = AskedTraining(**loops_own.model_dump(include=set(AskedTraining.model_fields)))
    left = before.model_copy(
        update={"every": tuple(t for t in before.every if t != loops_own), "asked": (asked,)}
    )
    try:
        definitions = small_flights.definitions(calm.names)
        assert list(drive(calm.names, definitions, calm.instance, calm.stores, left, [])) == []
        after = calm.noted()
    finally:
        write_progress(store, before)
    assert after.asked == ()
    assert [t.window for t in after.every] == [t.window for t in before.every], "by their clocks"
    [again] = [each for each in after.every if each.window == "2013-05"]
    assert again.model_digest == loops_own.model_digest, "the bytes that the loop made"
    assert not again.shared
    assert after.yardstick_seconds > before.yardstick_seconds


def test_a_replay_that_is_done_does_nothing_when_it_is_asked_for_again(calm, found):
    before = calm.instance.get_runs_count()
    assert calm.begin() == 0
    assert calm.instance.get_runs_count() == before
    assert calm.result() == found


def test_it_is_taken_up_as_it_was_begun_or_not_at_all(calm):
    for changed in ({"last": "2013-07"}, {"first": "2013-05"}, {"yardsticks": False}):
        with pytest.raises(LifecycleError, match="is here already") as caught:
            calm.begin(**changed)
        assert "a home of its own" in caught.value.remedy
    other = Replaying(small(exam={"windows": 2}), calm.stores, calm.instance)
    with pytest.raises(LifecycleError, match="another declaration"):
        other.begin()
    assert calm.begin("2013-4", "2013-6") == 0, "the same windows, written otherwise"
    for first, last in (("April", LAST), (LAST, FIRST), (FIRST, "2015-01")):
        with pytest.raises(LifecycleError, match="cannot be replayed"):
            calm.begin(first, last)


def test_the_page_and_the_summary_tell_the_result(calm, found):
    from aios_platform.replay.page import replay_page
    from aios_platform.replay.summary import replay_summary

    page = replay_page(found).decode()
    assert "2013-06" in page
    assert "<script src" not in page
    assert "2013-06" in replay_summary(found, "page.html")


def test_the_command_refuses_what_cannot_be_replayed(calm):
    """On the real model, which shares the small one's name: it was not this one that lived."""
    from typer.testing import CliRunner

    from aios_platform.cli.main import app

    def replay(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["replay", *arguments])
        assert done.exit_code != 0
        return f"{done.output} {done.exception}"

    assert "Did you mean 'flight_delay'" in replay("flight_dealy")
    assert "cannot be replayed" in replay("flight_delay", "--from", "2012-01")
    assert "another declaration" in replay("flight_delay", "--from", FIRST, "--to", LAST)
    told = CliRunner().invoke(app, ["replay", "--help"])
    assert told.exit_code == 0
    for option in ("--from", "--to", "--no-yardsticks"):
        assert option in told.output


def test_a_home_in_which_the_model_lives_already_takes_no_replay(calm):
    """What is left when the replay's own record is taken away."""
    from aios_platform.replay.progress import progress_name, write_progress

    (Path(calm.stores.artifacts.root) / progress_name(calm.names.model)).unlink()
    with pytest.raises(LifecycleError, match="has a life of its own here"):
        calm.begin()
    write_progress(calm.stores.artifacts, calm.progress)


def test_the_first_versions_answers_are_not_held_against_the_windows_it_was_judged_on(found):
    april = found.windows[0]
    assert (april.never, april.every, april.against_never) == (None, None, None)


# Back-fills of the replayed windows, after all else: they change what is current.


def planned(replay, first, last, **options):
    stores = replay.stores
    return plan_backfill(replay.names, stores.artifacts, stores.database, first, last, **options)


def carried_out(replay, chunks):
    definitions = small_flights.definitions(replay.names)
    return backfill(replay.names, definitions, replay.instance, replay.stores.database, chunks)


def scorers(replay, window):
    found = replay.versions(replay.names.predictions, window)
    return [version.inputs["model_version"] for version in found]


def test_windows_of_the_version_of_then_need_nothing(calm):
    assert scorers(calm, "2013-05") == ["1"]
    assert scorers(calm, "2013-06") == ["2"]
    assert planned(calm, "2013-05", "2013-06") == []


def test_a_window_in_which_none_was_live_needs_a_name(calm):
    with pytest.raises(LifecycleError, match=r"No version .* was live when 2013-04 ended"):
        planned(calm, "2013-04", "2013-06")


@pytest.mark.parametrize(
    ("first", "last", "options", "message"),
    [
        ("2013-13", "2013-06", {}, "cannot be back-filled"),
        ("2013-06", "2013-05", {}, "lies before the first"),
        ("2013-05", "2013-08", {"version": "1"}, "2013-07 to 2013-08 .* have no features"),
        ("2013-05", "2013-05", {"version": "77"}, "knows no version 77"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(calm, first, last, options, message):
    with pytest.raises(LifecycleError, match=message):
        planned(calm, first, last, **options)


def test_a_version_by_name_in_chunks_taken_up_where_it_was_left(calm):
    before = {
        window: calm.versions(calm.names.predictions, window) for window in ("2013-04", "2013-05")
    }
    decided = calm.rows("retrain_decision")
    champion = calm.champion()
    chunks = planned(calm, "2013-04", "2013-06", version="2", chunk=1)
    assert [(chunk.windows, chunk.version) for chunk in chunks] == [
        (("2013-04",), "2"),
        (("2013-05",), "2"),
    ], "June is by version 2 already"
    begun = carried_out(calm, chunks)
    next(begun)
    begun.close()
    left = planned(calm, "2013-04", "2013-06", version="2", chunk=1)
    assert [chunk.windows for chunk in left] == [("2013-05",)]
    list(carried_out(calm, left))
    assert planned(calm, "2013-04", "2013-06", version="2") == []
    for window, versions in before.items():
        now = calm.versions(calm.names.predictions, window)
        assert now[: len(versions)] == versions, "the first predictions stay as they were"
        assert scorers(calm, window)[-1] == "2"
    assert calm.performance("2013-05")[-1].restated.startswith("version 1 -> 2")
    assert calm.performance("2013-04")[-1].trained_on, "version 2 has learnt from April"
    assert calm.rows("retrain_decision") == decided, "no training follows from a back-fill"
    assert calm.champion() == champion


def test_and_back_to_the_version_of_then(calm):
    chunks = planned(calm, "2013-05", "2013-06")
    assert [(chunk.windows, chunk.version) for chunk in chunks] == [(("2013-05",), "1")]
    list(carried_out(calm, chunks))
    assert scorers(calm, "2013-05") == ["1", "2", "1"]
    first, *_, last = calm.performance("2013-05")
    assert last.model_versions == first.model_versions
    assert last.revision > first.revision


def test_the_score_counts_what_the_stores_show_and_no_more(calm):
    found = score_of(calm.names, calm.stores)
    points = {finding.test.name: finding.points for finding in found.findings}
    assert points["data_1"] == points["infrastructure_4"] == points["monitoring_2"] == 1
    assert points["data_4"] == points["infrastructure_1"] == points["infrastructure_6"] == 0
    for finding in found.findings:
        trace = finding.trace
        assert (trace is not None) == (finding.points > 0)
        if trace is not None and trace.link.startswith("ledger row "):
            row = int(trace.link.removeprefix("ledger row "))
            assert entry(calm.stores.database, row).recorded_at == trace.at
        elif trace is not None:
            assert Path(trace.link.removeprefix("file://")).is_file()
    later = score_of(calm.names, calm.stores, found.at + COUNTS_FOR + timedelta(days=1))
    assert later.score == 0
    assert not any(finding.points for finding in later.findings)
