"""What should be here by now and is not."""

from datetime import UTC, datetime, timedelta

import pytest

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.monitoring.freshness import find_late, lacking_labels
from aios_platform.monitoring.performance import Performance, PerformanceStatus
from tests.unit.contracts.test_declaration import MINIMAL

DECLARATION = ModelDeclaration.model_validate(
    MINIMAL
    | {
        "label": MINIMAL["label"] | {"maturity_days": 5, "min_share": 0.5},
        "source": MINIMAL["source"] | {"max_delay_hours": 48},
    }
)
WINDOW = DECLARATION.windows.window("2013-03")
DAY = timedelta(days=1)


def measured(predictions=100, unlabelled=0, status=PerformanceStatus.MEASURED):
    return Performance(
        model="toy", window=WINDOW.key, status=status, metric="roc_auc", metrics={},
        confidence=0.95, model_versions=("1",), predictions=predictions, labels=0, matched=0,
        unlabelled_predictions=unlabelled, unpredicted_labels=0, repeated_labels=0,
        as_of=WINDOW.end, reason="",
    )  # fmt: skip


def late(after, **there):
    given = {"delivered": (), "scored": (), "to_score": (), "performance": {}, "missing": {}}
    return find_late(DECLARATION, closed=[WINDOW], now=WINDOW.end + after, **(given | there))


def test_a_window_is_late_once_its_time_is_over_and_says_why():
    assert late(2 * DAY) == []
    [found] = late(2 * DAY + timedelta(minutes=1), missing={"2013-03": "the vendor is down"})
    assert found.what == "window"
    assert found.due == WINDOW.end + 2 * DAY
    assert "the vendor is down" in found.reason


def test_a_window_that_came_is_late_when_the_champion_should_have_scored_it():
    here = {"delivered": {"2013-03"}, "to_score": {"2013-03"}}
    assert late(2 * DAY, **here) == []
    [found] = late(3 * DAY, **here)
    assert found.what == "predictions"
    assert late(3 * DAY, **here, scored={"2013-03"}) == []


def test_before_there_is_a_champion_no_prediction_is_late():
    assert late(30 * DAY, delivered={"2013-03"}) == []


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (measured(), None),
        (measured(unlabelled=50), None),
        (measured(unlabelled=51), "labels"),
        (measured(status=PerformanceStatus.NOT_MATURED), "labels"),
        (None, "labels"),
        (measured(predictions=0), None),
    ],
    ids=["all", "half", "fewer", "not measured", "unknown", "nothing predicted"],
)
def test_labels_are_late_when_a_matured_window_has_too_few(found, what):
    here = {"delivered": {"2013-03"}, "scored": {"2013-03"}}
    performance = {} if found is None else {"2013-03": found}
    assert late(4 * DAY, **here, performance=performance) == [], "it has not matured yet"
    assert [each.what for each in late(5 * DAY, **here, performance=performance)] == (
        [what] if what else []
    )


def test_the_share_of_labels_is_named():
    assert "49%" in lacking_labels(DECLARATION, measured(unlabelled=51))


def test_windows_are_told_oldest_first():
    closed = DECLARATION.windows.windows(datetime(2013, 6, 1, tzinfo=UTC))
    found = find_late(
        DECLARATION, closed=closed, delivered=(), scored=(), to_score=(), performance={},
        missing={}, now=datetime(2014, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    assert [each.window for each in found] == [window.key for window in closed]
