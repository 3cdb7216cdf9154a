"""The gate as a whole errs as rarely as it says; `benchmarks/gate_power.py` measures it closely."""

from collections import Counter

from aios_platform.contracts.decisions import Decision
from benchmarks.gate_power import GATE, judge


def decided(difference, rounds, rows=2000):
    return Counter(judge(rows, difference, seed).decision for seed in range(rounds))


def test_worse_by_the_margin_is_promoted_as_rarely_as_declared():
    found = decided(-GATE.margin, 60)
    # At most 1.5 expected; seven or more has a probability below 0.1 %.
    assert found[Decision.PROMOTE] < 7
    # Being worse by exactly the margin is not being worse than it: at most 1.5 again.
    assert found[Decision.REJECT] < 7


def test_better_by_the_margin_is_mostly_promoted_and_never_rejected():
    found = decided(GATE.margin, 20)
    assert found[Decision.PROMOTE] > 8
    assert found[Decision.REJECT] == 0


def test_much_worse_is_mostly_rejected_and_never_promoted():
    found = decided(-6 * GATE.margin, 12)
    assert found[Decision.REJECT] > 8
    assert found[Decision.PROMOTE] == 0
