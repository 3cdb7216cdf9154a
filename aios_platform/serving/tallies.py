"""Figures per version and role, added up in memory and handed on every second."""

import asyncio
import logging
import resource
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import prometheus_client

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.serving import ServiceLevel
from aios_platform.serving import metrics
from aios_platform.serving.problems import problem_of
from aios_platform.serving.recording import Minute, Recorder
from aios_platform.serving.replies import FALLBACKS
from aios_platform.serving.summed_metrics import settle
from aios_platform.serving.version import ServedVersion
from aios_platform.serving.work import Work

if TYPE_CHECKING:
    from aios_platform.serving.deployment import Deployment

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
SERVER_ERROR = 500


class Tally:
    """Sums over the requests of one version in one role since the last flush."""

    __slots__ = (
        "errors", "failures", "prediction", "prediction_squared", "requests", "rows", "seconds",
        "seconds_squared", "slow",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = self.errors = self.failures = self.slow = self.rows = 0
        self.seconds = self.seconds_squared = 0.0
        self.prediction = self.prediction_squared = 0.0


class Tallies:
    """Counts requests, and hands the sums to the recorder and to the metrics.

    Args:
        declarations: The models.
        deployments: What serves now.
        recorder: Takes the sums.
    """

    def __init__(
        self,
        declarations: Mapping[str, ModelDeclaration],
        deployments: Mapping[str, "Deployment"],
        recorder: Recorder,
    ) -> None:
        self._declarations = declarations
        self._deployments = deployments
        self._recorder = recorder
        self._sums: dict[tuple[ServedVersion, str], Tally] = {}
        self._processor = _processor_seconds()
        self._scoring: dict[ServedVersion, float] = {}
        self._written: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._spent: dict[str, float] = {}
        self._rows: dict[str, int] = {}

    def count(self, work: Work, slo: ServiceLevel) -> None:
        """Count a request that ended."""
        version: ServedVersion = work.version
        seconds = time.monotonic() - work.arrived
        key = (version, work.role)
        tally = self._sums.get(key)
        if tally is None:
            tally = self._sums[key] = Tally()
        tally.requests += 1
        tally.seconds += seconds
        tally.seconds_squared += seconds * seconds
        version.metrics.seconds.observe(seconds)
        if work.error is not None:
            status = problem_of(work.error).status
            tally.errors += status >= SERVER_ERROR
            tally.failures += status >= SERVER_ERROR
            version.metrics.answered(status).inc()
            return
        version.metrics.answered(200).inc()
        tally.failures += work.failed
        tally.slow += seconds * 1000 > slo.latency_ms
        if work.count == 1:
            version.metrics.source(work.sources[0]).inc()
        else:
            for source, count in Counter(work.sources).items():
                version.metrics.source(source).inc(count)
        # What others answered is none of the version's predictions.
        own = work.probabilities
        if own.ndim > 1:
            own = version.figures(own)
        if not FALLBACKS.isdisjoint(work.sources):
            own = own[[source not in FALLBACKS for source in work.sources]]
        tally.rows += len(own)
        if len(own) == 1:
            probability = float(own[0])
            tally.prediction += probability
            tally.prediction_squared += probability * probability
        else:
            wide = own.astype(float)
            tally.prediction += float(wide.sum())
            tally.prediction_squared += float(wide @ wide)

    async def run(self) -> None:
        """Flush every second, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                self.flush()
            except Exception:
                logger.exception("Figures of the last second were not handed on.")

    def flush(self) -> None:
        """Hand the sums on."""
        sums, self._sums = self._sums, {}
        rows: dict[str, int] = {}
        for (version, role), tally in sums.items():
            rows[version.model] = rows.get(version.model, 0) + tally.rows
            self._recorder.count(_minute(version, role, tally))
        self._account(rows)
        for deployment in self._deployments.values():
            live = deployment.live
            live.metrics.queue_rows.set(deployment.batcher.rows)
            live.metrics.breaker.set(live.breaker.is_open)
        _catch_up(metrics.WRITTEN, self._recorder.written, self._written)
        _catch_up(metrics.LOST, self._recorder.lost, self._lost)
        # Another worker process may be the one that is asked for the page.
        settle()

    def _account(self, rows: Mapping[str, int]) -> None:
        """Spread the process's processor time over the models.

        A model bears what its scoring took; the rest of the process by its share of the rows.
        """
        now = _processor_seconds()
        spent, self._processor = now - self._processor, now
        every = sum(rows.values())
        if not every:
            return
        scoring: dict[str, float] = {}
        before, self._scoring = self._scoring, {}
        for deployment in self._deployments.values():
            trial = deployment.trial
            for version in (deployment.live, *([trial.version] if trial else [])):
                self._scoring[version] = version.seconds
                taken = version.seconds - before.get(version, 0.0)
                scoring[version.model] = scoring.get(version.model, 0.0) + taken
        rest = max(spent - sum(scoring.values()), 0.0)
        for model, count in rows.items():
            seconds = scoring.get(model, 0.0) + rest * count / every
            metrics.CPU_SECONDS.labels(model).inc(seconds)
            self._spent[model] = self._spent.get(model, 0.0) + seconds
            self._rows[model] = self._rows.get(model, 0) + count
            price = self._declarations[model].serving.price
            cost = self._spent[model] / 3600 * price.cpu_hour / self._rows[model] * 1000
            metrics.COST.labels(model, price.currency).set(cost)


def _minute(version: ServedVersion, role: str, tally: Tally) -> Minute:
    kind: Literal["live", "canary"] = "canary" if role == "canary" else "live"
    return Minute(
        model=version.model,
        version=version.version,
        role=kind,
        requests=tally.requests,
        errors=tally.errors,
        failures=tally.failures,
        slow=tally.slow,
        rows=tally.rows,
        seconds=tally.seconds,
        seconds_squared=tally.seconds_squared,
        prediction=tally.prediction,
        prediction_squared=tally.prediction_squared,
    )


def _catch_up(
    counter: prometheus_client.Counter, totals: Mapping[str, int], told: dict[str, int]
) -> None:
    for model, total in list(totals.items()):
        counter.labels(model).inc(total - told.get(model, 0))
        told[model] = total


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
