"""Which version was live when."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from aios_platform.components.model_lifecycle.scorers import live_at
from aios_platform.contracts.decisions import Champion

BEGIN = datetime(2013, 1, 1, tzinfo=UTC)


def champion(revision, live_from, promoted_at=BEGIN):
    return Champion(
        model="m", version=str(revision), model_digest="d", run_id="r", training_set_digest="t",
        trained_through="2012-12", baseline={}, promoted_at=promoted_at, live_from=live_from,
        revision=revision,
    )  # fmt: skip


def after(days):
    return BEGIN + timedelta(days=days)


def test_the_newest_that_had_gone_live_by_then():
    champions = [champion(3, after(60)), champion(2, after(30)), champion(1, after(10))]
    assert live_at(champions, after(9)) is None
    assert live_at(champions, after(10)).version == "1"
    assert live_at(champions, after(59)).version == "2"
    assert live_at(champions, after(400)).version == "3"


def test_a_row_of_before_there_was_a_clock_counts_from_its_promotion():
    old = champion(1, None, promoted_at=after(5))
    assert live_at([old], after(4)) is None
    assert live_at([old], after(5)) is old


@given(days=st.lists(st.integers(0, 100), min_size=1, max_size=6), at=st.integers(0, 100))
def test_it_is_never_one_of_later(days, at):
    champions = [champion(n + 1, after(day)) for n, day in enumerate(sorted(days))][::-1]
    found = live_at(champions, after(at))
    gone_live = [c for c in champions if c.live_from <= after(at)]
    assert found == (gone_live[0] if gone_live else None)
