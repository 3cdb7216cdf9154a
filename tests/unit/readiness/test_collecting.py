"""Which ledger rows count as evidence, and which do not."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from aios_platform.contracts.decisions import Outcome
from aios_platform.contracts.readiness import How, Trace
from aios_platform.readiness import collecting
from aios_platform.readiness.collecting import LEARNS, SOUND

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def check(name, *, held=True):
    return {"name": name, "held": held, "observed": 0.0, "bound": 1.0, "says": f"{name} was seen."}


def row(seq, speed, checks=()):
    payload = {"rows_per_second": speed, "checks": list(checks)}
    return SimpleNamespace(seq=seq, payload=payload, recorded_at=NOW)


def facts(candidate, *, earlier=(), judged=True, rules=()):
    trace = Trace(
        test="monitoring_6", how=How.AUTOMATED, link="ledger row 9", says="2 rules passed.", at=NOW
    )
    return SimpleNamespace(
        candidate=candidate,
        rows=lambda kind: [*([candidate] if candidate else []), *earlier],
        passed=lambda test, *prefixes: [trace] if judged else [],
        verdict=(row(9, 0), SimpleNamespace(rules=rules)),
    )


@pytest.mark.parametrize(
    ("speed", "earlier", "judged", "counts"),
    [
        (1000, [900, 1100], True, True),
        (600, [900, 1100], True, True),
        (400, [900, 1100], True, False),
        (1000, [], True, False),
        (1000, [900], False, False),
        (1000, [None], True, False),
    ],
    ids=["as fast", "slower", "half as fast", "the first", "not judged", "an earlier release"],
)
def test_speed_is_held_against_the_versions_before(speed, earlier, judged, counts):
    before = [row(3 - n, each) for n, each in enumerate(earlier)]
    found = list(collecting._speed(facts(row(5, speed), earlier=before, judged=judged)))
    assert [trace.test for trace in found] == ["monitoring_6"] * counts


def test_versions_after_it_are_no_yardstick():
    later = facts(row(5, 100), earlier=[row(7, 900), row(3, 110)])
    assert len(list(collecting._speed(later))) == 1


@pytest.mark.parametrize("names", [LEARNS, SOUND])
def test_checks_count_when_each_of_them_held(names):
    def counted(checks):
        return list(collecting._checked(facts(row(5, 1, checks)), "some_test", names))

    [trace] = counted([check(name) for name in names])
    assert trace.says == f"{names[0]} was seen. {names[1]} was seen."
    assert not counted([check(names[0])])
    assert not counted([check(names[0]), check(names[1], held=False)])
    assert not list(collecting._checked(facts(None), "some_test", names))


@pytest.mark.parametrize(("low", "counts"), [(0.01, True), (-0.01, False), (None, False)])
def test_a_linear_model_must_be_shown_to_be_worse(low, counts):
    rule = SimpleNamespace(rule="beats_linear", low=low, outcome=Outcome.NOTED, reason="Better.")
    found = list(collecting._linear(facts(None, rules=[rule])))
    assert [trace.test for trace in found] == ["model_5"] * counts
