"""A verdict as table, plot and JSON."""

from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from aios_platform.contracts.decisions import Decision, Outcome, RuleResult, Verdict
from aios_platform.promotion import report

HOSTILE = "<img src=x onerror=alert(1)> | [a](javascript:alert(1)) \n# heading `code`"


def verdict(**changes):
    rules = (
        RuleResult(rule="exam", outcome=Outcome.PASS, observed=28000, bound=1000, reason="enough"),
        RuleResult(
            rule="non_inferior",
            outcome=Outcome.UNKNOWN,
            metric="roc_auc",
            observed=-0.003,
            low=-0.006,
            high=0.001,
            bound=-0.005,
            rows=28000,
            reason=HOSTILE,
        ),
    )
    fields = {
        "model": "flight_delay",
        "decision": Decision.INCONCLUSIVE,
        "candidate_version": "2",
        "champion_version": "1",
        "exam_digest": "ab" * 32,
        "exam_windows": ("2013-10", "2013-12"),
        "rules": rules,
        "candidate_metrics": {"roc_auc": 0.7712},
        "champion_metrics": {"roc_auc": 0.7742},
        "decided_at": datetime(2014, 1, 1, tzinfo=UTC),
    }
    return Verdict.model_validate({**fields, **changes})


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)


def test_markdown_says_what_was_decided_and_why():
    text = report.verdict_markdown(verdict())
    assert text.startswith("**INCONCLUSIVE**: candidate 2 against champion 1")
    assert "2013-10 to 2013-12" in text
    assert "| roc_auc | 0.7712 | 0.7742 |" in text
    assert "| non_inferior | ? unknown | -0.003 | -0.0060 to +0.0010 | -0.005 | 28000 |" in text
    assert "| exam | ✓ pass | 28,000 | - | 1,000 | - |" in text


def test_markdown_makes_text_from_outside_inert():
    text = report.verdict_markdown(verdict())
    parser = Tags()
    parser.feed(text)
    assert parser.found == []
    assert "[a](" not in text
    assert "\n# heading" not in text


def test_markdown_without_champion_or_metrics():
    text = report.verdict_markdown(
        verdict(champion_version=None, candidate_metrics={}, exam_windows=())
    )
    assert "against no champion, exam no window" in text
    assert "| metric |" not in text


def test_json_gives_the_verdict_back():
    assert Verdict.model_validate_json(report.verdict_json(verdict())) == verdict()


@pytest.mark.parametrize("outcome", list(Outcome))
def test_plot_is_a_png_and_always_the_same(outcome):
    rules = (verdict().rules[1].model_copy(update={"outcome": outcome}),)
    drawn = report.verdict_plot(verdict(rules=rules))
    assert drawn is not None
    assert drawn.startswith(b"\x89PNG")
    assert drawn == report.verdict_plot(verdict(rules=rules))


def test_no_plot_without_a_comparison():
    assert report.verdict_plot(verdict(rules=verdict().rules[:1])) is None
    assert report.comparison(verdict(rules=())) is None


def test_plot_of_identical_models_has_some_width():
    rule = verdict().rules[1].model_copy(update={"observed": 0, "low": 0, "high": 0, "bound": 0})
    assert report.verdict_plot(verdict(rules=(rule,))) is not None
