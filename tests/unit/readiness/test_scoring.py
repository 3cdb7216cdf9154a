from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_platform.contracts.readiness import POINTS, How, Section, Trace
from aios_platform.errors import LedgerError
from aios_platform.readiness.rubric import BANDS, RUBRIC, band_of, require_test
from aios_platform.readiness.scoring import COUNTS_FOR, score

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = [test.name for test in RUBRIC]


def trace(test="data_1", how=How.AUTOMATED, days=1.0, expires=None) -> Trace:
    return Trace(
        test=test, how=how, link=f"row {days}", says="", at=NOW - timedelta(days=days),
        expires_at=expires,
    )  # fmt: skip


traces = st.lists(
    st.builds(
        trace,
        st.sampled_from([*NAMES, "unknown_1"]),
        st.sampled_from(How),
        st.integers(-5, 200),
        st.none() | st.integers(-200, 400).map(lambda days: NOW + timedelta(days=days)),
    ),
    max_size=60,
)


@given(traces)
def test_the_weakest_section_decides_and_each_point_has_a_trace_that_counts(found):
    result = score("m", found, NOW)
    assert result.score == min(result.sections.values())
    assert set(result.sections) == set(Section)
    for finding in result.findings:
        if finding.trace is None:
            assert finding.points == 0
            continue
        assert finding.trace in found
        assert finding.trace.test == finding.test.name
        assert finding.points == POINTS[finding.trace.how]
        assert finding.trace.at <= NOW < (finding.trace.expires_at or NOW + COUNTS_FOR)


@given(traces, traces)
def test_more_evidence_never_lowers_a_score_and_its_order_says_nothing(some, more):
    before, after = score("m", some, NOW), score("m", some + more, NOW)
    assert all(after.sections[part] >= before.sections[part] for part in Section)
    assert score("m", [*reversed(some)], NOW).sections == before.sections


def test_four_sections_of_seven_tests():
    assert len(set(NAMES)) == 28
    assert [test.section for test in RUBRIC] == [part for part in Section for _ in range(7)]
    full = score("m", [trace(name) for name in NAMES], NOW)
    assert (full.score, full.band) == (7, BANDS[-1][1])
    by_hand = score("m", [trace(name, How.MANUAL) for name in NAMES], NOW)
    assert by_hand.score == 3.5
    assert score("m", [], NOW).band == BANDS[0][1]


@pytest.mark.parametrize(
    ("value", "place"),
    [(0, 0), (0.5, 1), (1, 1), (1.5, 2), (2, 2), (3, 3), (3.5, 4), (5, 4), (5.5, 5), (7, 5)],
)
def test_bands_hold_their_upper_end(value, place):
    assert band_of(value) == BANDS[place][1]


def test_old_evidence_counts_nothing_and_is_named():
    old = trace(days=93)
    [finding, *_] = score("m", [old], NOW).findings
    assert (finding.points, finding.trace, finding.stale) == (0, None, old)
    [finding, *_] = score("m", [trace(days=300, expires=NOW + timedelta(days=1))], NOW).findings
    assert finding.points == 1
    [finding, *_] = score("m", [trace(days=-1)], NOW).findings
    assert (finding.points, finding.stale) == (0, None), "what is not yet there shows nothing"


def test_a_misspelt_test_is_refused():
    assert require_test("data_4").section is Section.DATA
    with pytest.raises(LedgerError, match="not one of the 28"):
        require_test("data_8")
