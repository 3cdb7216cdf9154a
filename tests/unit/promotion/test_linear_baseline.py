"""The rule `beats_linear`: noted unless the policy requires it, and then it fails closed."""

import pytest

from aios_platform.contracts.decisions import Decision, Outcome
from aios_platform.contracts.policy import LinearBaseline
from aios_platform.promotion.exam import Contender
from tests.unit.promotion.test_gate import ALIKE, GATE, GOOD, POOR, contender, judge, outcome

REQUIRED = GATE.model_copy(update={"linear_baseline": LinearBaseline.REQUIRED})
MISSING = Contender.unscorable("linear", "2013-09", "The window 2013-08 is gone.")


def rule(verdict):
    return next((r for r in verdict.rules if r.rule == "beats_linear"), None)


@pytest.mark.parametrize(
    ("linear", "found", "decision"),
    [
        (contender("9", POOR), Outcome.PASS, Decision.PROMOTE),
        (contender("9", GOOD), Outcome.FAIL, Decision.REJECT),
        (contender("9", ALIKE), Outcome.UNKNOWN, Decision.INCONCLUSIVE),
        (MISSING, Outcome.UNKNOWN, Decision.INCONCLUSIVE),
        (None, Outcome.UNKNOWN, Decision.INCONCLUSIVE),
    ],
    ids=["worse", "the same", "as good", "not fitted", "not asked for"],
)
@pytest.mark.parametrize("champion", [None, contender("1", POOR)], ids=["first", "later"])
def test_where_it_is_required(linear, found, decision, champion):
    verdict = judge(contender("2", GOOD), champion, gate=REQUIRED, linear=linear)
    assert outcome(verdict, "beats_linear") is found
    assert verdict.decision is decision


@pytest.mark.parametrize("linear", [contender("9", GOOD), MISSING])
def test_else_it_is_shown_and_decides_nothing(linear):
    verdict = judge(contender("2", GOOD), contender("1", POOR), linear=linear)
    assert outcome(verdict, "beats_linear") is Outcome.NOTED
    assert verdict.decision is Decision.PROMOTE
    assert ("is gone" in rule(verdict).reason) is (linear is MISSING)


def test_it_can_be_turned_off():
    off = GATE.model_copy(update={"linear_baseline": LinearBaseline.OFF})
    verdict = judge(contender("2", GOOD), None, gate=off, linear=contender("9", POOR))
    assert rule(verdict) is None
