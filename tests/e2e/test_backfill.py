"""Past windows scored again, by the version of then or one by name; nothing is overwritten."""

import pytest

from aios_platform.components.model_lifecycle.backfilling import backfill, plan_backfill
from aios_platform.errors import LifecycleError
from tests.e2e import small_flights

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]


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
