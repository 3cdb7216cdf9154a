"""From evidence to a score: a pure function. What is not shown counts nothing."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from aios_platform.contracts.readiness import (
    POINTS,
    Finding,
    RubricTest,
    Section,
    TestScore,
    Trace,
)
from aios_platform.readiness.rubric import RUBRIC, band_of

COUNTS_FOR = timedelta(days=92)
"""Older evidence says nothing of today's model: a quarter of a year."""


def score(model: str, traces: Iterable[Trace], at: datetime) -> TestScore:
    """The ML Test Score at a moment; more evidence never lowers it.

    Args:
        model: Name of the model.
        traces: What was found; traces of unknown tests are passed over.
        at: The moment, aware. Evidence counts from when it was stored until it expires.
    """
    found = list(traces)
    findings = tuple(
        _finding(test, [trace for trace in found if trace.test == test.name], at) for test in RUBRIC
    )
    sections = {
        section: sum(f.points for f in findings if f.test.section is section) for section in Section
    }
    lowest = min(sections.values())
    return TestScore(
        model=model,
        at=at,
        findings=findings,
        sections=sections,
        score=lowest,
        band=band_of(lowest),
    )


def _finding(test: RubricTest, traces: list[Trace], at: datetime) -> Finding:
    counting = [t for t in traces if t.at <= at < (t.expires_at or t.at + COUNTS_FOR)]
    best = max(counting, key=lambda t: (POINTS[t.how], t.at, t.link), default=None)
    if best is not None:
        return Finding(test=test, points=POINTS[best.how], trace=best)
    past = [t for t in traces if t.at <= at]
    return Finding(
        test=test, points=0, trace=None, stale=max(past, key=lambda t: (t.at, t.link), default=None)
    )
