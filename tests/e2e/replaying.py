"""The small model in a replay, moment by moment, and its home as it was when it had gone live."""

import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.runner import RunResult
from aios_platform.contracts.replays import Replay
from aios_platform.replay.clocks import ticks
from aios_platform.replay.drive import begin, drive
from aios_platform.replay.progress import Progress, read_progress
from aios_platform.replay.results import results
from aios_platform.resources.stores import Stores
from tests.e2e import small_flights
from tests.homes import forget
from tests.postgres_servers import stop_postgres

FIRST, LAST = "2013-04", "2013-06"
LENIENT = {
    "floors": {"roc_auc": 0.52},
    "min_rows": 200,
    "resamples": 200,
    "margin": 0.2,
    "slice_margin": 0.4,
    "guards": {"log_loss": 0.5},
    "max_latency_ratio": 50,
    "max_latency_ms": 1000,
    "max_exam_drift": 1.0,
}


def small(**changes: Any) -> Names:
    """The small model over the year, with a network of seconds and a gate that it passes."""
    declared = {
        "windows": small_flights.attributes()["windows"] | {"end": "2014-01-01"},
        "exam": {"windows": 1},
        "training": {"hidden": [8], "epochs": 1, "min_windows": 3, "batch_size": 512},
        "gate": LENIENT,
        "monitoring": {"report_rows": 100, "test_rows": 500},
    }
    return small_flights.names(**declared | changes)


@dataclass
class Replaying:
    """A replay of the small model in this process."""

    names: Names
    stores: Stores
    instance: dg.DagsterInstance
    progress: Progress | None = None
    results: list[RunResult] = field(default_factory=list)

    def begin(self, first: str = FIRST, last: str = LAST, *, yardsticks: bool = True) -> int:
        """Begin it, or take it up; how many moments are left."""
        self.progress, moments = begin(self.names, self.stores, first, last, yardsticks=yardsticks)
        return len(moments)

    def result(self) -> Replay:
        """What it came to."""
        return results(self.names, self.stores, self.progress, datetime(2026, 1, 1, tzinfo=UTC))

    def go_on(self, last: str) -> None:
        """Live on from where the home is, to another end and without yardsticks."""
        before = read_progress(self.stores.artifacts, self.names.model)
        self.progress = before.model_copy(update={"last": last, "yardsticks": False})

    def until(
        self, *, closed: str = "", matured: str = "", at_once: bool = False
    ) -> list[RunResult]:
        """Live through the moments up to that one, or through that one only; the runs of it."""
        found: list[RunResult] = []
        moments = ticks(self.names.declaration, self.progress.first, self.progress.last)
        left = [t for t in moments if not self.progress.through or t.clock > self.progress.through]
        end = next(n for n, t in enumerate(left) if closed in t.closed or matured in t.matured)
        chosen = left[end : end + 1] if at_once else left[: end + 1]
        definitions = small_flights.definitions(self.names)
        for moment in drive(
            self.names, definitions, self.instance, self.stores, self.progress, chosen
        ):
            found = list(moment.results)
            self.results += found
        self.progress = self.noted()
        return found

    def noted(self) -> Progress:
        """The progress as the next process would find it."""
        return read_progress(self.stores.artifacts, self.names.model)

    def rows(self, kind: str) -> list[Any]:
        """Rows of the ledger of one kind, oldest first."""
        from aios_platform.ledger.entries import entries

        found = entries(self.stores.database, subject=self.names.model, kind=kind, limit=1000)
        return found[::-1]

    def decisions(self, window: str) -> list[dict[str, Any]]:
        """The decisions on a window, oldest first."""
        found = (row.payload["decision"] for row in self.rows("retrain_decision"))
        return [decision for decision in found if decision["window"] == window]

    def performance(self, window: str) -> list[Any]:
        """Everything that was said about a window's performance, oldest first."""
        from aios_platform.components.model_lifecycle.measuring import revisions

        return revisions(self.names, self.stores.artifacts, window)

    def faults(self, window: str) -> tuple[str, ...]:
        """The data faults that were found in a window."""
        from aios_platform.components.model_lifecycle.faults import search_faults

        found = search_faults(self.names, self.stores.artifacts, window).faults
        return tuple(str(fault.kind) for fault in found)

    def champion(self) -> Any:
        """The live champion."""
        from aios_platform.ledger.champions import champion_of

        return champion_of(self.stores.database, self.names.model)

    def alerts(self, kind: str | None = None, *, open_only: bool = False) -> list[str]:
        """What alerts are about, e.g. windows, oldest first."""
        from aios_platform.alerts.outbox import alerts

        found = alerts(self.stores.database, open_only=open_only, limit=1000)
        return [a.alert.key.split(":", 2)[2] for a in found[::-1] if kind in (None, a.alert.kind)]

    def versions(self, dataset: str, window: str) -> list[Any]:
        """The versions of a dataset of a window, oldest first."""
        return self.stores.artifacts.history(dataset, window)


@dataclass(frozen=True)
class Grown:
    """A home in which a replay has ended: its copy, what it found, and how many runs it took."""

    home: Path
    copy: Path
    instance: dg.DagsterInstance
    found: Replay
    runs: int


def keep(home: Path, copy: Path) -> None:
    """Copy a home whose server has stopped."""
    forget()
    stop_postgres(home)
    _copy(home, copy)


def put_back(copy: Path, home: Path) -> None:
    """A home as it was when it was kept."""
    forget()
    stop_postgres(home)
    shutil.rmtree(home)
    _copy(copy, home)


def _copy(home: Path, other: Path) -> None:
    # With its owners: run as root, the server is somebody else's.
    subprocess.run(["cp", "-a", home, other], check=True)
