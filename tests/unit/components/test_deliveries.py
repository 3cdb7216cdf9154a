"""Windows that did not come or were refused, and those that were read."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from aios_platform.components.model_lifecycle.deliveries import (
    Missing,
    awaited,
    missing_windows,
    note_missing,
    note_read,
    read_again,
    settled,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.errors import LifecycleError
from tests.unit.contracts.test_declaration import MINIMAL

DECLARATION = ModelDeclaration.model_validate(
    MINIMAL
    | {
        "label": MINIMAL["label"] | {"maturity_days": 5},
        "source": MINIMAL["source"] | {"ask_again_hours": 24},
    }
)
WINDOW = DECLARATION.windows.window("2013-03")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def names(tmp_path):
    return Names(DECLARATION, tmp_path)


def test_a_window_that_did_not_come_is_left_alone_for_a_day(names, store):
    note_missing(names, store, "2013-03", Missing.LATE, "not yet", WINDOW.end)
    assert awaited(names, store, WINDOW.end + 23 * HOUR) == ({"2013-03": 1}, {"2013-03"})
    assert awaited(names, store, WINDOW.end + 24 * HOUR) == ({"2013-03": 1}, frozenset())
    note_missing(names, store, "2013-03", Missing.LATE, "not yet", WINDOW.end + DAY)
    asked, rest = awaited(names, store, WINDOW.end + DAY)
    assert (asked, rest) == ({"2013-03": 2}, {"2013-03"})
    [delivery] = missing_windows(names, store)
    assert (delivery.first_asked, delivery.last_asked) == (WINDOW.end, WINDOW.end + DAY)


def test_once_it_has_come_it_is_awaited_no_more(names, store):
    note_missing(names, store, "2013-03", Missing.LATE, "not yet", WINDOW.end)
    note_read(names, store, "2013-03", WINDOW.end + DAY)
    assert awaited(names, store, WINDOW.end + DAY) == ({}, frozenset())
    note_missing(names, store, "2013-03", Missing.REFUSED, "its repetition", WINDOW.end + 2 * DAY)
    assert awaited(names, store, WINDOW.end + 2 * DAY)[1] == {"2013-03"}


@pytest.mark.parametrize(
    ("missing", "at_once"), [(Missing.REFUSED, True), (Missing.LATE, False)], ids=str
)
def test_a_persons_command_asks_at_once_for_what_was_mended(names, store, missing, at_once):
    note_missing(names, store, "2013-03", missing, "why", WINDOW.end)
    _, rest = awaited(names, store, WINDOW.end, patient=True)
    assert ("2013-03" not in rest) == at_once
    _, later = awaited(names, store, WINDOW.end + HOUR, patient=True)
    assert later == frozenset()


def test_a_window_is_settled_when_it_was_read_after_its_labels_were_complete(names, store):
    keys = ["2013-03"]
    assert settled(names, store, keys) == frozenset()
    note_read(names, store, "2013-03", WINDOW.end)
    assert settled(names, store, keys) == frozenset()
    note_read(names, store, "2013-03", WINDOW.end + 5 * DAY)
    assert settled(names, store, keys) == {"2013-03"}


def test_a_settled_window_can_be_read_again(names, store):
    note_read(names, store, "2013-03", WINDOW.end + 5 * DAY)
    read_again(names, store, "2013-03", WINDOW.end + 90 * DAY)
    assert settled(names, store, ["2013-03"]) == frozenset()


@pytest.mark.parametrize(
    ("key", "now", "message"),
    [
        ("2013-3rd", WINDOW.end, "has no such window"),
        ("2012-12", WINDOW.end, "has no such window"),
        ("2013-03", WINDOW.end + DAY, "is read by itself on 2013-04-06"),
        ("2013-04", datetime(2014, 1, 1, tzinfo=UTC), "is read by itself when it comes"),
    ],
)
def test_what_is_read_by_itself_need_not_be_asked_for(names, store, key, now, message):
    note_read(names, store, "2013-03", WINDOW.end)
    with pytest.raises(LifecycleError, match=message):
        read_again(names, store, key, now)


def test_a_persons_command_asks_once_for_a_repetition_whose_last_good_version_stays(names, store):
    store.write(names.raw_rows, "2013-03", pa.table({"x": [1]}))
    note_read(names, store, "2013-03", WINDOW.end)
    note_missing(names, store, "2013-03", Missing.REFUSED, "why", WINDOW.end + 5 * DAY)
    # The run was green, so nothing but the clock tells this ask from the next.
    assert awaited(names, store, WINDOW.end + 5 * DAY, patient=True)[1] == {"2013-03"}
    assert awaited(names, store, WINDOW.end + 6 * DAY, patient=True)[1] == frozenset()
