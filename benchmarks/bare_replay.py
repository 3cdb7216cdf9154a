"""A year of flight_delay lived through by one plain script: what `aios replay` is measured against.

Month by month, with the clock of the month's end: cut the data to what was known, make features,
score with the live model, look at drift. Two days later: read the labels, measure, decide whether
to train again, train, hold the exam, swap. Then two yardsticks: the first champion never trained
again, and one that is trained with every month. The same data, feature SQL, network, rules and
intervals as the platform's; DuckDB, polars, torch, ONNX Runtime and scipy in one process. Nothing
is registered, versioned, governed or resumable, and no page is drawn.

What is known once is kept: parsed files, frames of past months (no later knowledge changes them,
only their labels come), and a training that both the loop and the yardstick want is made once.

    python benchmarks/bare_replay.py [folder to write to] [--no-checks] [--no-yardsticks]
"""

import argparse
import json
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import bare_checks
import bare_gate
import bare_source
import bare_watch
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from bare_features import MODEL, TTL, compute, frame_of
from bare_model import Scorer, export, schema_of, train

MONTHS = [f"2013-{month:02}" for month in range(1, 13)]
SLICES = ["origin", "carrier"]
MIN_TRAINED, EXAM = 3, 1
NEW_DATA, DEGRADATION, MAX_AGE, COOL_DOWN = 0.5, 0.02, 6, 1


@dataclass
class Model:
    """A trained network with what it was trained on."""

    scorer: Scorer
    trained: list[str]
    exam: str
    baseline: float = 0.0
    reference: Any = None


@dataclass
class Month:
    """One month as it was known when it ended, and what came of it."""

    raw: dict[str, pl.DataFrame]
    features: dict[str, pl.DataFrame]
    frame: pa.Table
    scored_by: Model | None = None
    scores: np.ndarray | None = None
    expected: tuple[float, float] | None = None
    drift: dict = field(default_factory=dict)
    measured: tuple[float, float, float] | None = None

    @property
    def labelled(self) -> np.ndarray:
        """Which rows have a truth."""
        return pc.is_valid(self.frame["is_late"]).to_numpy()

    @property
    def truth(self) -> np.ndarray:
        """Labels of the rows that have one."""
        return self.frame["is_late"].to_numpy(zero_copy_only=False)[self.labelled].astype(bool)


class Year:
    """The loop.

    Args:
        folder: Where to write.
        checks: Also validate, fill an online store, look for leaks, test each ONNX model, and
            measure slices, as the platform does.
    """

    def __init__(self, folder: Path, *, checks: bool) -> None:
        self.folder, self.checks = folder, checks
        self.declared = yaml.safe_load((MODEL / "defs.yaml").read_text())["attributes"]
        self.tables = self.declared["source"]["tables"]
        self.maturity = timedelta(days=self.declared["label"]["maturity_days"])
        self.seconds: dict[str, float] = defaultdict(float)
        self.months: dict[str, Month] = {}
        self.models: dict[tuple[str, ...], Model] = {}
        self.champions: list[Model] = []
        self.trained_at: list[int] = []
        self.told: list[str] = []
        self.cells = [0, 0]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of a phase, without that of phases within it."""
        begin, inner = time.perf_counter(), sum(self.seconds.values())
        yield
        spent = sum(self.seconds.values()) - inner
        self.seconds[name] += time.perf_counter() - begin - spent

    @cached_property
    def source(self) -> dict[str, pl.DataFrame]:
        """The files, parsed once."""
        return {"flights": bare_source.flights(), "weather": bare_source.weather(),
                "planes": bare_source.planes()}  # fmt: skip

    def live_through(self, months: list[str]) -> None:
        """Every month: when it ends, and when its labels are complete."""
        for key in months:
            end = bare_source.start_of(_after(key))
            self.ends(key, end)
            self.matures(key, end + self.maturity)

    def ends(self, key: str, clock: datetime) -> None:
        """A month is over: take it in, make its features, score it."""
        with self.phase("read"):
            raw = self.delivered(key, clock)
        if self.checks:
            with self.phase("validation"):
                self.validate(raw)
        with self.phase("features"):
            begin = bare_source.start_of(key)
            known = raw
            before = self.months.get(_before(key))
            if before is not None:
                earlier = {name: before.raw[name] for name in ("flights", "weather")}
                known = raw | {name: pl.concat([earlier[name], raw[name]]) for name in earlier}
            own = pl.col("event_timestamp").is_between(
                *(moment.replace(tzinfo=None) for moment in (begin, clock)), closed="left"
            )
            features = {name: table.filter(own) for name, table in compute(known, begin, clock)}
        if self.checks:
            with self.phase("online"):
                bare_checks.write_online(self.folder / "online.db", features.items())
        with self.phase("join"):
            rows = raw["flights"].with_columns(window=pl.lit(key))
            request = self.declared["features"]["request"]
            past = [before.features] if before is not None else []

            def load(name: str) -> pl.DataFrame:
                return pl.concat([*(tables[name] for tables in past), features[name]])

            frame = frame_of(rows, load, request)
            frame = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            _write(frame, self.folder / "frames" / f"{key}.parquet")
        self.months[key] = Month(raw, features, frame)
        if self.champions:
            self.score(key)

    def delivered(self, key: str, clock: datetime) -> dict[str, pl.DataFrame]:
        """A month's tables as they were known at a moment."""
        begin, end = (bare_source.start_of(month) for month in (key, _after(key)))
        own = {
            name: self.source[name].filter(pl.col(time).is_between(begin, end, closed="left"))
            for name, time in (("flights", "scheduled_at"), ("weather", "observed_at"))
        }
        own["planes"] = self.source["planes"].with_columns(snapshot_at=bare_source.instant(key))
        return {
            name: bare_source.known_by(table, self.tables[name], clock)
            for name, table in own.items()
        }

    def validate(self, raw: dict[str, pl.DataFrame]) -> None:
        """Rows that break a rule are counted."""
        with duckdb.connect(config={"threads": 2}) as connection:
            for name, table in raw.items():
                connection.register("arriving", table.to_arrow())
                known = set(table.columns)
                bare_checks.broken_rows(connection, "arriving", self.tables[name], known)

    def score(self, key: str) -> None:
        """Predictions of the live model, what they promise, and how far its inputs moved."""
        month, model = self.months[key], self.champions[-1]
        with self.phase("scoring"):
            month.scored_by, month.scores = model, model.scorer.predict(month.frame)
            table = month.frame.select(["flight_id", "prediction_time"])
            table = table.append_column("probability", pa.array(month.scores))
            _write(table, self.folder / "predictions" / f"{key}.parquet")
        with self.phase("drift"):
            month.drift = bare_watch.drift(month.frame, month.scores, model.reference)
        with self.phase("estimate"):
            month.expected = bare_watch.estimate(month.scores, model.reference)

    def matures(self, key: str, clock: datetime) -> None:
        """The labels of a month are complete: measure, decide, train, swap."""
        month = self.months[key]
        with self.phase("read"):
            month.raw = self.delivered(key, clock)
            truth = month.raw["flights"].select("flight_id", "is_late", "landed_at")
            ids = pl.DataFrame({"flight_id": pl.Series(month.frame["flight_id"])})
            found = ids.join(truth, on="flight_id", how="left", maintain_order="left")
            found = found.to_arrow(compat_level=pl.CompatLevel.oldest())
            for name in ("is_late", "landed_at"):
                place = month.frame.schema.get_field_index(name)
                month.frame = month.frame.set_column(place, name, found[name])
        if self.checks:
            with self.phase("validation"):
                self.validate(month.raw)
        if not self.champions:
            if len(self.months) >= MIN_TRAINED + EXAM and self.attempt(key):
                self.score(key)
                self.measure(key)
            return
        self.measure(key)
        cause = self.wanted(key)
        if cause:
            self.told.append(f"{key}: {cause}")
            self.attempt(key)

    def measure(self, key: str) -> None:
        """Figures of a scored month whose labels are complete."""
        month = self.months[key]
        with self.phase("performance"):
            scores = month.scores[month.labelled]
            month.measured = bare_watch.performance(month.truth, scores)
        if self.checks:
            with self.phase("slices"):
                bare_watch.by_slice(month.truth, scores, self.slices(key))

    def slices(self, key: str) -> dict[str, np.ndarray]:
        """Columns of the labelled rows whose values are looked at by themselves."""
        month = self.months[key]
        return {name: month.frame[name].to_numpy()[month.labelled].astype(str) for name in SLICES}

    def wanted(self, key: str) -> str:
        """Why to train again; empty when nothing asks for it."""
        month, live, place = self.months[key], self.champions[-1], MONTHS.index(key)
        if month.scored_by is not live or place - self.trained_at[-1] < COOL_DOWN:
            return ""
        value, _, high = month.measured
        worse = live.baseline - high
        moved = month.drift["weighted"] > 0.5 and worse > 0
        if worse > DEGRADATION or (moved and live.baseline - value > DEGRADATION):
            return f"{value:.4f} after {live.baseline:.4f}"
        if place - MONTHS.index(live.trained[-1]) >= MAX_AGE:
            return "age"
        new = sum(self.months[k].frame.num_rows for k in self.months if k > live.trained[-1])
        old = sum(self.months[k].frame.num_rows for k in live.trained)
        return f"{new:,} new rows" if new >= NEW_DATA * old else ""

    def attempt(self, key: str) -> bool:
        """Train, hold the exam, and swap if the candidate may become champion."""
        model = self.model(list(self.months), leaks=True)
        exam = self.months[model.exam]
        self.trained_at.append(MONTHS.index(key))
        with self.phase("exam"):
            rows = exam.frame.filter(pa.array(exam.labelled))
            live = self.champions[-1] if self.champions else None
            own = model.scorer.predict(rows).astype(np.float64)
            other = live.scorer.predict(rows).astype(np.float64) if live else None
            floors = self.declared["gate"]["floors"]
            against = bare_gate.examine(
                exam.truth, own, other, self.slices(model.exam), floors, shown=self.checks
            )
            model.baseline = bare_gate.evaluate(exam.truth, own)["roc_auc"]
        self.told.append(f"{key}: {'refused: ' + ', '.join(against) if against else 'promoted'}")
        if against:
            return False
        with self.phase("reference"):
            model.reference = bare_watch.reference_of(
                model.scorer, self.frames(model.trained), rows
            )
        self.champions.append(model)
        return True

    def model(self, matured: list[str], *, leaks: bool = False) -> Model:
        """A model trained on matured months but the last, the exam; the same months, the same."""
        trained, exam = matured[:-EXAM], matured[-1]
        if tuple(trained) not in self.models:
            frame = self.frames(trained)
            schema = schema_of(frame)
            if leaks and self.checks:
                with self.phase("leak check"):
                    self.find_leaks(frame, schema, trained)
            with self.phase("training"):
                settings = self.declared["training"]
                network, encoding = train(frame, schema, settings, trained, over_all=True)
            with self.phase("export"):
                path = self.folder / f"model-{trained[-1]}.onnx"
                export(network, schema, path)
                scorer = Scorer.load(path, schema, encoding)
            if self.checks:
                with self.phase("parity"):
                    bare_checks.parity(frame, schema, encoding, network, path)
            self.models[tuple(trained)] = Model(scorer, trained, exam)
        return self.models[tuple(trained)]

    def frames(self, keys: list[str]) -> pa.Table:
        """The frames of some months."""
        return pa.concat_tables([self.months[key].frame for key in keys])

    def find_leaks(self, frame: pa.Table, schema, trained: list[str]) -> None:
        """Features made again at two moments, and the AUC of each feature alone."""
        moments = bare_checks.moments_of(frame, trained)
        for moment in moments:
            # What a moment can see: the month that it lies in, and those that its features reach.
            keys = [k for k in trained if _near(k, moment)]
            raw, used = (
                {
                    name: pl.concat([getattr(self.months[key], part)[name] for key in keys])
                    for name in names
                }
                for part, names in (("raw", self.tables), ("features", TTL))
            )
            found = bare_checks.replay(raw, self.declared, used, [moment])
            self.cells = [a + b for a, b in zip(self.cells, found, strict=True)]
        bare_checks.canary(frame, schema)


def yardsticks(year: Year, months: list[str]) -> dict[str, dict]:
    """The live model beside the first champion and one trained with every month, same rows."""
    first, found = year.champions[0], {}
    every = first
    for key in months:
        month = year.months[key]
        if month.measured is None or key <= first.exam:
            continue
        rows = month.labelled
        arms = {"live": month.scores[rows].astype(np.float64)}
        for name, model in (("never", first), ("every", every)):
            with year.phase("yardsticks"):
                arms[name] = model.scorer.predict(month.frame)[rows].astype(np.float64)
        with year.phase("yardsticks"):
            gains = {name: bare_gate.delong(month.truth, arms["live"], arms[name])
                     for name in ("never", "every")}  # fmt: skip
            told = {name: bare_watch.performance(month.truth, p)[0] for name, p in arms.items()}
        found[key] = told | {f"against_{name}": gain for name, gain in gains.items()}
        if key != months[-1]:
            every = year.model(months[: months.index(key) + 1])
    return found


def main() -> None:
    """Live through the year and print what came of it, as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where to write; unset, nowhere")
    parser.add_argument("--checks", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--yardsticks", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        year = Year(options.folder or Path(scratch), checks=options.checks)
        year.live_through(MONTHS)
        lived = time.perf_counter() - begin
        arms = yardsticks(year, MONTHS) if options.yardsticks else {}
        seconds = time.perf_counter() - begin
    print(json.dumps(_told(year, arms, seconds, lived)))


def _told(year: Year, arms: dict[str, dict], seconds: float, lived: float) -> dict:
    measured = {k: m for k, m in year.months.items() if m.measured is not None}
    means = {
        name: (
            float(np.mean([arm[name][0] for arm in arms.values()])),
            float(np.sqrt(sum(arm[name][1] ** 2 for arm in arms.values())) / len(arms)),
        )
        for name in ("against_never", "against_every")
        if arms
    }
    return {
        "seconds": round(seconds, 2),
        "without_yardsticks": round(lived, 2),
        "phases": {name: round(value, 2) for name, value in year.seconds.items()},
        "live": {key: round(month.measured[0], 4) for key, month in measured.items()},
        "expected": {
            key: [round(end, 4) for end in month.expected] for key, month in measured.items()
        },
        "arms": {
            key: {name: round(arm[name], 4) for name in ("live", "never", "every")}
            for key, arm in arms.items()
        },
        **{name: [round(value, 5) for value in mean] for name, mean in means.items()},
        "drift": {key: month.drift for key, month in measured.items()},
        "trained_after": [MONTHS[place] for place in year.trained_at],
        "told": year.told,
        "leak_cells": year.cells,
        "rows": sum(month.frame.num_rows for month in year.months.values()),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _after(key: str) -> str:
    year, month = map(int, key.split("-"))
    return f"{year + month // 12}-{month % 12 + 1:02}"


def _before(key: str) -> str:
    year, month = map(int, key.split("-"))
    return f"{year - (month == 1)}-{(month - 2) % 12 + 1:02}"


def _near(key: str, moment: datetime) -> bool:
    begin, end = (bare_source.start_of(month) for month in (key, _after(key)))
    return begin <= moment + timedelta(days=1) and end > moment - timedelta(days=62)


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", compression_level=1)


if __name__ == "__main__":
    main()
