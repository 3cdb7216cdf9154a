"""A verdict as table, plot and JSON."""

from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from aios_platform.contracts.decisions import Decision, Outcome, RuleResult, Verdict
from aios_platform.promotion import report

HOSTILE = "<img src=x onerror=alert(1)> | [a](javascript:alert(1)) \n# heading `code`"


def verdict(**changes):
    rules = (
        RuleResult(
            rule="exam",
            outcome=Outcome.PASS,
            observed=28000,
            bound=1000,
            rows=28000,
            reason="enough",
        ),
        RuleResult(
            rule="non_inferior",
            outcome=Outcome.UNKNOWN,
            metric="roc_auc",
            observed=-0.003,
            low=-0.006,
            high=0.001,
            bound=-0.005,
            rows=28000,
            adjusted_p=0.4,
            detectable=0.0042,
            reason=HOSTILE,
        ),
    )
    slices = tuple(
        rules[1].model_copy(
            update={"rule": f"slice_{name}", "slice": name, "outcome": Outcome.FAIL}
        )
        for name in ("carrier=EV", "carrier=<b>$x$|\u98db\u884c\u6a5f" + "x" * 40)
    )
    fields = {
        "model": "flight_delay",
        "decision": Decision.INCONCLUSIVE,
        "candidate_version": "2",
        "champion_version": "1",
        "exam_digest": "ab" * 32,
        "exam_windows": ("2013-10", "2013-12"),
        "rules": rules + slices,
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
    assert "| roc_auc | 0.7712 | - | 0.7742 |" in text
    compared = "-0.003 | -0.0060 to +0.0010 | -0.005 | 0.4 | 0.0042 | 28,000 |"
    assert f"| roc_auc | all | ? unknown | {compared}" in text
    assert f"| roc_auc | carrier=EV | ✗ fail | {compared}" in text
    assert text.index("roc_auc | all") < text.index("carrier=EV")
    assert "| exam | ✓ pass | 28,000 | - | 1,000 | 28,000 |" in text


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
    assert "| metric | candidate |" not in text


def test_json_gives_the_verdict_back():
    assert Verdict.model_validate_json(report.verdict_json(verdict())) == verdict()


@pytest.mark.parametrize("outcome", list(Outcome))
def test_plot_is_a_png_and_always_the_same(outcome):
    rules = tuple(each.model_copy(update={"outcome": outcome}) for each in verdict().rules[1:])
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


def test_plot_shows_the_worst_of_many_slices():
    worst = verdict().rules[2]
    many = [
        worst.model_copy(
            update={"rule": f"slice_tail=N{n}", "slice": f"tail=N{n}", "observed": n / 1000}
        )
        for n in range(80)
    ]
    drawn = report.verdict_plot(verdict(rules=(verdict().rules[1], *many)))
    few = report.verdict_plot(verdict(rules=(verdict().rules[1], *many[:30])))
    # Same rows but for the line that says how many are left out: hardly any taller.
    assert png_height(few) < png_height(drawn) < png_height(few) + 30


def png_height(content):
    return int.from_bytes(content[20:24], "big")
