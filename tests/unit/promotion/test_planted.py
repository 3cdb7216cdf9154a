"""Planted candidates on real flights: the page shows what the gate says of them."""

import pytest

from aios_platform.contracts.decisions import Decision, Outcome
from benchmarks import planted_candidates


@pytest.fixture(scope="module")
def found():
    return {each.name: each for each in planted_candidates.planted()}


def test_the_page_shows_the_verdicts(found):
    shown = planted_candidates.on_page(planted_candidates.PAGE.read_text())
    fresh = planted_candidates.table(list(found.values()))
    assert shown == fresh, "run python -m benchmarks.planted_candidates --write"


@pytest.mark.parametrize(
    ("name", "decision", "rule", "outcome"),
    [
        ("better", Decision.PROMOTE, "non_inferior", Outcome.PASS),
        ("equal", Decision.INCONCLUSIVE, "differs", Outcome.UNKNOWN),
        ("as good", Decision.PROMOTE, "non_inferior", Outcome.PASS),
        ("noise", Decision.REJECT, "non_inferior", Outcome.FAIL),
        ("worse on a slice", Decision.REJECT, "slice_carrier=MQ", Outcome.FAIL),
        ("miscalibrated", Decision.REJECT, "guard_reliability", Outcome.FAIL),
        ("slow", Decision.REJECT, "max_latency_ratio", Outcome.FAIL),
        ("leaked", Decision.REJECT, "shared_rows", Outcome.FAIL),
        ("wrong features", Decision.INCONCLUSIVE, "candidate_scored", Outcome.UNKNOWN),
        ("corrupted", Decision.INCONCLUSIVE, "candidate_scored", Outcome.UNKNOWN),
        ("oversize", Decision.REJECT, "max_size_ratio", Outcome.FAIL),
        ("unfair", Decision.REJECT, "selection_difference_origin", Outcome.FAIL),
        ("unreproducible", Decision.REJECT, "provenance", Outcome.FAIL),
    ],
)
def test_each_candidate_gets_what_it_deserves(found, name, decision, rule, outcome):
    verdict = found[name].verdict
    assert verdict.decision is decision
    assert next(r.outcome for r in verdict.rules if r.rule == rule) is outcome


def test_worse_on_a_slice_is_better_on_the_whole(found):
    rules = {rule.rule: rule for rule in found["worse on a slice"].verdict.rules}
    assert rules["non_inferior"].low > 0
