"""What a replay came to: the live model and both yardsticks, on the same rows of each window."""

import math
from collections.abc import Sequence
from datetime import datetime
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from aios_platform.components.model_lifecycle.documents import find_document
from aios_platform.components.model_lifecycle.faults import FAULTS
from aios_platform.components.model_lifecycle.measuring import revisions
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.record import digest_of
from aios_platform.contracts.replays import (
    DriftSummary,
    Expectation,
    Gain,
    Replay,
    ReplayedWindow,
)
from aios_platform.ledger.champions import history
from aios_platform.ledger.entries import LedgerEntry, entries
from aios_platform.replay.answers import Answers
from aios_platform.replay.decided import MOST_ROWS, decisions_by_window, trainings_by_window
from aios_platform.replay.progress import Progress

if TYPE_CHECKING:
    from aios_platform.monitoring.performance import Performance
    from aios_platform.resources.stores import Stores


def results(names: Names, stores: "Stores", progress: Progress, now: datetime) -> Replay:
    """Gather what a replay left in the stores.

    Args:
        names: The model.
        stores: Where everything is.
        progress: The replay.
        now: When it ended; wall time.
    """
    store, database = stores.artifacts, stores.database
    champions = history(database, names.model)
    rows = entries(database, subject=names.model, limit=MOST_ROWS)
    decisions = decisions_by_window(rows)
    trainings = trainings_by_window(names, rows, progress)
    alerts = _alerts(names, stores)
    answers = Answers(names, stores, champions, progress)
    windows = []
    for key in _keys(names, progress):
        raw = store.current(names.raw_rows, key)
        seconds = sum(run.seconds for run in progress.runs if run.window == key)
        found = _measured(names, stores, key)
        figures = answers.of(key, found, progress.through) if found else {}
        windows.append(
            ReplayedWindow.model_validate(
                {
                    "window": key,
                    "rows": raw.rows if raw else 0,
                    "labelled": found.matched if found else 0,
                    "base_rate": found.base_rate if found else None,
                    "missing": "" if raw else "it did not come",
                    "live": None,
                    **figures,
                    "expectation": _expectation(found),
                    "drift": _drift(names, stores, key),
                    "faults": _faults(names, stores, key),
                    "decision": decisions.get(key),
                    "trainings": trainings.get(key, ()),
                    "alerts": tuple(alerts.get(key, ())),
                    "seconds": seconds,
                }
            )
        )
    confidence = names.declaration.gate.confidence
    after_first = [t for w in windows for t in w.trainings if t.helped is not None]
    every = [t for t in progress.every if champions and t.clock > _begun(champions)]
    return Replay(
        model=names.model,
        description=names.declaration.description,
        metric=names.declaration.gate.metric,
        confidence=confidence,
        first=progress.first,
        last=progress.last,
        windows=tuple(windows),
        against_never=mean_gain([w.against_never for w in windows], confidence),
        against_every=mean_gain([w.against_every for w in windows], confidence),
        trainings=len(after_first),
        trainings_every=len(every),
        training_seconds=sum(training.seconds for training in after_first),
        training_seconds_every=sum(training.seconds for training in every),
        runs=len(progress.runs),
        seconds=sum(run.seconds for run in progress.runs),
        yardstick_seconds=progress.yardstick_seconds,
        digest=_digest(names, stores, rows, progress),
        declaration_digest=progress.declaration_digest,
        finished_at=now,
    )


def mean_gain(gains: Sequence[Gain | None], confidence: float) -> Gain | None:
    """The mean of gains on different rows, which are independent, with its normal interval.

    Args:
        gains: One per window; those that are None are left out.
        confidence: Two-sided confidence.
    """
    found = [gain for gain in gains if gain is not None]
    if not found:
        return None
    value = sum(gain.value for gain in found) / len(found)
    error = math.sqrt(sum(gain.standard_error**2 for gain in found)) / len(found)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return Gain(
        value=value, low=value - reach, high=value + reach, standard_error=error,
        windows=len(found),
    )  # fmt: skip


def _begun(champions: list[Champion]) -> datetime:
    return champions[-1].live_from or champions[-1].promoted_at


def _keys(names: Names, progress: Progress) -> list[str]:
    end = names.declaration.windows.window(progress.last).end
    closed = names.declaration.windows.windows(end)
    return [window.key for window in closed if progress.first <= window.key <= progress.last]


def _measured(names: Names, stores: "Stores", key: str) -> "Performance | None":
    """The newest figures of the version that scored the window first: what was acted on."""
    versions = stores.artifacts.history(names.predictions, key)
    if not versions:
        return None
    first = versions[0].inputs.get("model_version")
    told = [r for r in revisions(names, stores.artifacts, key) if r.model_versions == (first,)]
    return told[-1] if told else None


def _expectation(found: "Performance | None") -> Expectation | None:
    if found is None or found.estimate is None:
        return None
    promised = found.estimate.metrics.get(found.metric)
    score = found.estimate_scores.get(found.metric)
    if promised is None or score is None:
        return None
    return Expectation(
        value=promised.value, low=promised.low, high=promised.high, inside=score.inside
    )


def _drift(names: Names, stores: "Stores", key: str) -> DriftSummary | None:
    from aios_platform.monitoring.drift import DriftReport

    report = find_document(names, stores.artifacts, "drift", key, DriftReport)
    if report is None:
        return None
    weight = {column.name: column.importance or 0.0 for column in report.columns}
    return DriftSummary(
        status=str(report.status),
        share=report.share,
        weighted_share=report.weighted_share,
        features=tuple(sorted(report.drifted, key=lambda name: (-weight.get(name, 0.0), name))),
    )


def _faults(names: Names, stores: "Stores", key: str) -> tuple[str, ...]:
    from aios_platform.monitoring.faults import FaultReport

    report = find_document(names, stores.artifacts, FAULTS, key, FaultReport)
    return tuple(fault.reason for fault in report.faults) if report else ()


def _alerts(names: Names, stores: "Stores") -> dict[str, list[str]]:
    """Alerts by the window that their key ends with, oldest first."""
    from aios_platform.alerts.outbox import alerts

    found: dict[str, list[str]] = {}
    for raised in reversed(alerts(stores.database, subject=names.model, limit=MOST_ROWS)):
        window = raised.alert.key.rsplit(":", 1)[-1]
        found.setdefault(window, []).append(f"{raised.alert.kind}: {raised.alert.summary}")
    return found


def _digest(names: Names, stores: "Stores", rows: list[LedgerEntry], progress: Progress) -> str:
    """SHA-256 over what was decided and predicted; times of the wall clock are not in it."""
    said: list[Any] = []
    for row in reversed(rows):
        if row.kind == "retrain_decision":
            said.append([row.payload["version"], row.payload["decision"]])
        elif row.kind == "verdict":
            verdict = row.payload["verdict"]
            # What was measured on the machine, such as latency, is another every time.
            said.append(
                [verdict[name] for name in (
                    "decision", "candidate_version", "champion_version", "candidate_digest",
                    "champion_digest", "exam_digest", "candidate_metrics", "champion_metrics",
                )]
            )  # fmt: skip
    for key in _keys(names, progress):
        for version in stores.artifacts.history(names.predictions, key):
            said.append([key, version.digest])
    return digest_of(said)
