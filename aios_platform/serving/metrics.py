"""Prometheus metrics of the gateway: rate, errors and duration per model and version, and why.

With several worker processes the values lie in files under PROMETHEUS_MULTIPROC_DIR, and whichever
process is asked adds them up (prometheus_client's multiprocess mode).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

from aios_platform.serving.summed_metrics import SummedCounter, SummedHistogram, settle
from aios_platform.settings import settings

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
PROBABILITIES = tuple(round(place / 10, 1) for place in range(1, 10))
AGES = (1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400)

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
_VERSION = ("model", "version")


def _counter(name: str, text: str, *labels: str) -> SummedCounter:
    return SummedCounter(name, text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str, mode: Any = "livesum") -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY, multiprocess_mode=mode)


def _histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> SummedHistogram:
    return SummedHistogram(name, text, labels, registry=REGISTRY, buckets=buckets)


REQUESTS = _counter("aios_requests", "Requests answered, by HTTP status.", *_VERSION, "code")
REQUEST_SECONDS = _histogram(
    "aios_request_seconds", "Time from a request's last byte to its answer.", SECONDS, *_VERSION
)
SOURCES = _counter("aios_rows", "Rows answered, by what answered.", *_VERSION, "source")
BATCH_ROWS = _histogram("aios_batch_rows", "Rows scored together.", ROWS, *_VERSION)
QUEUE_WAIT = _histogram(
    "aios_queue_wait_seconds", "Time a request waited for its batch.", SECONDS, *_VERSION
)
QUEUE_ROWS = _gauge("aios_queue_rows", "Rows that wait or are being scored.", *_VERSION)
CACHE_HITS = _counter("aios_cache_hits", "Rows answered from the cache.", *_VERSION)
CACHE_MISSES = _counter("aios_cache_misses", "Rows not in the cache.", *_VERSION)
FALLBACKS = _counter("aios_fallbacks", "Rows answered by a fallback.", "model", "hop")
BREAKER_OPEN = _gauge("aios_breaker_open", "1 while a version rests.", *_VERSION, mode="max")
ABSTENTIONS = _counter("aios_abstentions", "Rows on which the model abstained.", *_VERSION)
PREDICTION = _histogram(
    "aios_prediction", "Distribution of the predicted probabilities.", PROBABILITIES, *_VERSION
)
FEATURE_AGE = _histogram(
    "aios_feature_age_seconds", "Age of a row's oldest stored feature.", AGES, "model"
)
UNAVAILABLE = _counter(
    "aios_features_unavailable", "Rows with a feature missing, stale or unreachable.",
    "model", "reason",
)  # fmt: skip
WRITTEN = _counter("aios_records_written", "Served rows recorded.", "model")
LOST = _counter("aios_records_lost", "Served rows that could not be recorded.", "model")
LIVE = _gauge("aios_live_version", "1 for the version that is live.", *_VERSION, mode="max")
REACHABLE = _gauge("aios_store_reachable", "1 while a store answers.", "store", mode="min")
CPU_SECONDS = _counter("aios_cpu_seconds", "Processor time spent on a model.", "model")
COST = _gauge(
    "aios_cost_per_thousand", "Cost of a thousand inferences, at the declared price.",
    "model", "currency", mode="mostrecent",
)  # fmt: skip
REFUSED = _counter("aios_refused", "Requests refused before they reached a model.", "code")
SHADOW_ROWS = _counter("aios_shadow_rows", "Rows mirrored to a candidate.", *_VERSION)
SWAPS = _counter("aios_swaps", "Changes of the live version.", "model", "outcome")


class VersionMetrics:
    """The children of one version, looked up once.

    Args:
        model: Name of the model.
        version: The version.
    """

    def __init__(self, model: str, version: str) -> None:
        self._labels = (model, version)
        self.seconds = REQUEST_SECONDS.labels(model, version)
        self.batch_rows = BATCH_ROWS.labels(model, version)
        self.queue_wait = QUEUE_WAIT.labels(model, version)
        self.queue_rows = QUEUE_ROWS.labels(model, version)
        self.hits = CACHE_HITS.labels(model, version)
        self.misses = CACHE_MISSES.labels(model, version)
        self.breaker = BREAKER_OPEN.labels(model, version)
        self.abstentions = ABSTENTIONS.labels(model, version)
        self.prediction = PREDICTION.labels(model, version)
        self.answered = cache(self._answered)
        self.source = cache(self._source)

    def rest(self) -> None:
        """The version takes no traffic any more: nothing waits for it, and nothing is wrong."""
        self.queue_rows.set(0)
        self.breaker.set(0)

    def _answered(self, code: int) -> Any:
        return REQUESTS.labels(*self._labels, str(code))

    def _source(self, source: str) -> Any:
        return SOURCES.labels(*self._labels, source)


def page() -> tuple[bytes, str]:
    """The metrics as Prometheus reads them, and their content type."""
    if settings().metrics_folder is None:
        return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
    settle()
    gathered = CollectorRegistry()
    multiprocess.MultiProcessCollector(gathered)  # type: ignore[no-untyped-call]
    return generate_latest(gathered), CONTENT_TYPE_LATEST
