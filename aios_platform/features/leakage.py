"""The leakage check: does any feature know what was not yet known at prediction time?

It runs on every training set and looks in three ways:

*Replay.* At sampled moments the raw tables are cut back to what was known then, the feature
tables are made again from that, and joined for the rows predicted at that moment, and for many
other rows as if predicted then. An honest feature comes out the same; one that looks ahead does
not, whatever its timestamps claim.

*Request.* A column that the caller is to send must be known at prediction time.

*Canary.* A single feature that separates the label too well is suspected, even if the first two
found nothing (the clocks in the declaration might be wrong).
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import DatasetVersion, FieldKind
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.record import Record
from aios_platform.errors import LeakageError
from aios_platform.features.canary import one_against_rest, single_feature_auc
from aios_platform.features.replay import Leak, Replay
from aios_platform.features.training_set import FeatureFrames
from aios_platform.known import INSTANT

NUMERICAL, CATEGORICAL = FieldKind.NUMERICAL, FieldKind.CATEGORICAL
CUTOFFS = 2
# Queries, joins and sorts release the interpreter's lock. Two bound the memory.
MOMENTS_AT_ONCE = 2
FEATURES_AT_ONCE = 2
CANARY_ROWS = 60_000


class LeakageReport(Record):
    """What the check looked at, and what it found."""

    model: str
    training_set: str = Field(description="Digest of the frames.")
    moments: tuple[datetime, ...] = Field(description="Moments replayed.")
    rows_replayed: int
    cells_compared: int
    nothing_joined: bool = Field(
        default=False, description="Whether every input comes with the request."
    )
    single_feature_auc: dict[str, float] = Field(
        description="Per number and category, the larger of AUC and 1 - AUC of its values alone; "
        "of a class against the rest the largest, of a regression against its median."
    )
    leaks: tuple[Leak, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was found, and something was looked at."""
        return not self.leaks and (self.cells_compared > 0 or self.nothing_joined)


def audit(
    declaration: ModelDeclaration,
    sql_folder: Path,
    frames: FeatureFrames,
    store: ArtifactStore,
    *,
    cutoffs: int = CUTOFFS,
) -> LeakageReport:
    """Check the frames of a training set for leaks.

    Args:
        declaration: The model; its `known_at` clocks say when what became known.
        sql_folder: Folder of its feature SQL.
        frames: Labelled frames as `assemble` gives them.
        store: Where they and the raw tables are.
        cutoffs: Moments to replay, spread over the windows; chosen by the frames' digest.

    Raises:
        ArtifactMissing: A raw or feature table is gone.
    """
    replay = Replay(declaration, sql_folder, frames, store)
    sampled = list(_moments(declaration, frames, store, cutoffs)) if frames.schema.joined else []
    with ThreadPoolExecutor(MOMENTS_AT_ONCE) as pool:
        replayed = list(pool.map(lambda at: list(replay.at(*at)), sampled))
    rows, cells = 0, 0
    leaks: dict[str, Leak] = {}
    for comparisons in replayed:
        for leak, count, compared in comparisons:
            rows, cells = rows + count, cells + compared
            if leak is not None:
                leaks.setdefault(leak.feature, leak)
    for leak in _request_leaks(declaration, frames, store):
        leaks.setdefault(leak.feature, leak)
    separation = _separation(declaration, frames, store)
    limit = declaration.features.max_single_feature_auc
    for name, auc in separation.items():
        if not auc <= limit:
            reason = f"alone it separates the label with AUC {auc:.3f}, above {limit}"
            leaks.setdefault(name, Leak(feature=name, check="canary", reason=reason))
    return LeakageReport(
        model=declaration.name,
        training_set=frames.digest,
        moments=tuple(moment.as_py() for _, moment in sampled),
        rows_replayed=rows,
        cells_compared=cells,
        nothing_joined=frames.rows > 0 and not frames.schema.joined,
        single_feature_auc=separation,
        leaks=tuple(leaks.values()),
    )


def refuse_leaks(report: LeakageReport) -> None:
    """Let a clean report pass.

    Raises:
        LeakageError: The report names a leak, or nothing could be compared.
    """
    if report.passed:
        return
    if not report.leaks:
        raise LeakageError(
            f"The leakage check of '{report.model}' had nothing to compare.",
            remedy="Train on windows that have rows and features.",
        )
    found = "; ".join(f"'{leak.feature}' ({leak.check}): {leak.reason}" for leak in report.leaks)
    raise LeakageError(
        f"The training set of '{report.model}' leaks: {found}.",
        remedy="Make each feature from what was known at its created_timestamp, or take it out.",
    )


def _moments(
    declaration: ModelDeclaration, frames: FeatureFrames, store: ArtifactStore, count: int
) -> Iterator[tuple[DatasetVersion, pa.Scalar]]:
    """Prediction times of rows of different windows and different hours, by the digest."""
    versions = [version for version in frames.versions if version.rows]
    column = declaration.source.prediction_time
    hours: list[int] = []
    for place in range(min(count, len(versions)) if len(versions) >= count else count):
        if not versions:
            return
        version = versions[(place + 1) * len(versions) // count - 1]
        times = store.read(version, [column])[column]
        seed = int(hashlib.sha256(f"{frames.digest}:{place}".encode()).hexdigest(), 16)
        for attempt in range(16):
            moment = times[(seed + attempt * 7919) % version.rows]
            if all(abs(moment.as_py().hour - hour) >= 2 for hour in hours):
                break
        hours.append(moment.as_py().hour)
        yield version, moment


def _request_leaks(
    declaration: ModelDeclaration, frames: FeatureFrames, store: ArtifactStore
) -> Iterator[Leak]:
    source = declaration.source
    columns = source.tables[source.rows].columns
    for name in declaration.features.request:
        clock = columns[name].known_at
        if clock is None:
            continue
        for version in frames.versions:
            raw = store.require(f"{declaration.name}/raw/{source.rows}", version.key)
            wanted = list(dict.fromkeys([source.row_id, source.prediction_time, name, clock]))
            rows = store.read(raw, wanted)
            known = pc.less_equal(rows[clock].cast(INSTANT), rows[source.prediction_time])
            early = pc.and_(pc.is_valid(rows[name]), pc.invert(pc.fill_null(known, False)))
            count = pc.sum(early).as_py()
            if count:
                row = rows.filter(early).slice(0, 1).to_pylist()[0]
                yield Leak(
                    feature=name,
                    check="request",
                    reason=(
                        f"{count} of {rows.num_rows} rows of {version.key} have a value that "
                        f"became known (by '{clock}') after the prediction, e.g. row "
                        f"{row[source.row_id]}: {row[name]}, known at {row[clock]}"
                    ),
                    row=str(row[source.row_id]),
                    moment=row[source.prediction_time],
                    used=str(row[name]),
                    known="None",
                    rows=count,
                )
                break


def _separation(
    declaration: ModelDeclaration, frames: FeatureFrames, store: ArtifactStore
) -> dict[str, float]:
    """AUC of each input alone, on at most CANARY_ROWS labelled rows spread over the frames."""
    label = declaration.label.column
    step = max(frames.rows // CANARY_ROWS, 1)
    parts = []
    for version in frames.versions:
        table = store.read(version, [*frames.schema.names, label])
        table = table.filter(pc.is_valid(table[label]))
        parts.append(table.take(pa.array(np.arange(0, table.num_rows, step))))
    rows = pa.concat_tables(parts)
    truths = one_against_rest(rows[label], declaration.answers)
    # A vector or a text is all there is to see; that it tells the label apart says nothing.
    fields = [f for f in frames.schema.fields if f.kind in (NUMERICAL, CATEGORICAL)]
    with ThreadPoolExecutor(FEATURES_AT_ONCE) as pool:
        found = pool.map(
            lambda field: max(
                single_feature_auc(rows[field.name], truth, field.kind) for truth in truths
            ),
            fields,
        )
        return {field.name: auc for field, auc in zip(fields, found, strict=True)}
