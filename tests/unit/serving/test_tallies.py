"""What is counted of requests, and what serving costs."""

import time

import numpy as np
import pytest

from aios_platform.errors import DeadlineExceeded, RequestRefused, ScoringError
from aios_platform.serving.recording import Minute
from aios_platform.serving.tallies import Tallies
from aios_platform.serving.work import Work
from tests.gateways import metric
from tests.served_models import declaration, network
from tests.unit.serving.deployments import version_of


class Kept:
    """A recorder that keeps what it is given."""

    def __init__(self):
        self.minutes: dict[tuple[str, str], Minute] = {}
        self.written: dict[str, int] = {}
        self.lost: dict[str, int] = {}

    def count(self, minute: Minute) -> None:
        self.minutes[minute.version, minute.role] = minute


@pytest.fixture
def declared(request):
    name = request.node.name[:60]
    return declaration(name, slo={"latency_ms": 50}, price={"cpu_hour": 36, "currency": "EUR"})


def work(version, sources, probabilities, *, seconds=0.0, error=None, role="live", failed=False):
    arrived = time.monotonic() - seconds
    rows = len(sources)
    done = Work(
        "r", None, None, None, np.zeros(rows), [None] * rows, arrived, arrived + 1, lambda _: None
    )
    done.version, done.role, done.failed, done.error = version, role, failed, error
    done.sources, done.probabilities = sources, np.array(probabilities, np.float32)
    return done


def test_requests_are_summed_by_version_and_role(store, declared):
    version = version_of(store, network(), declared)
    kept = Kept()
    tallies = Tallies({declared.name: declared}, {}, kept)
    slo = declared.serving.slo
    for each in (
        work(version, ["full"], [0.5]),
        work(version, ["full", "cache", "default"], [0.25, 0.75, 0.0], failed=True),
        work(version, ["previous"], [0.9], failed=True),
        work(version, ["full"], [0.5], seconds=0.06),
        work(version, [], [], error=DeadlineExceeded("Late.")),
        work(version, [], [], error=ScoringError("Broken.")),
        work(version, [], [], error=RequestRefused("No feature.", code="feature_unavailable")),
        work(version, ["full"], [1.0], role="canary"),
    ):
        tallies.count(each, slo)
    tallies.flush()
    live, canary = kept.minutes["1", "live"], kept.minutes["1", "canary"]
    assert (live.requests, live.errors, live.failures, live.slow) == (7, 2, 4, 1)
    # Rows and predictions are those of the version itself.
    assert (live.rows, live.prediction, live.prediction_squared) == (4, 2.0, 1.125)
    assert (canary.requests, canary.rows, canary.prediction) == (1, 1, 1.0)
    assert 0.06 <= live.seconds < 5
    assert metric("aios_requests_total", model=declared.name, version="1", code="200") == 5
    assert metric("aios_requests_total", model=declared.name, version="1", code="504") == 1
    assert metric("aios_rows_total", model=declared.name, version="1", source="cache") == 1
    kept.minutes.clear()
    tallies.flush()
    assert kept.minutes == {}


def test_the_process_pays_for_the_rows_that_it_answers(store, declared):
    version = version_of(store, network(), declared)
    kept = Kept()
    tallies = Tallies({declared.name: declared}, {}, kept)
    before = time.process_time()
    while time.process_time() - before < 0.05:
        pass
    for _ in range(10):
        tallies.count(work(version, ["full"], [0.5]), declared.serving.slo)
    tallies.flush()
    spent = metric("aios_cpu_seconds_total", model=declared.name)
    assert spent >= 0.05
    # 36 an hour is a hundredth a second.
    cost = metric("aios_cost_per_thousand", model=declared.name, currency="EUR")
    assert cost == pytest.approx(spent * 0.01 / 10 * 1000)
