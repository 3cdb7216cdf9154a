"""Trains a registered version again from what is recorded of it, and compares."""

import tempfile
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from aios_platform.components.model_lifecycle.candidates import training_frame
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.datasets import DatasetVersion, TrainingSet
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.models import Provenance
from aios_platform.contracts.record import Record
from aios_platform.errors import AiosError, DatabaseUnavailable, StoreError
from aios_platform.features.pinned_sets import recall

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as pad

    from aios_platform.database import Database
    from aios_platform.resources.stores import Stores

REPRODUCTION = "reproduction"
TOLERANCE = 1e-6
COMPARED_ROWS = 5_000


class Difference(Record):
    """Something that is not as it was when the version was trained."""

    what: str
    recorded: str
    now: str


class Reproduction(Record):
    """What training a version again gave."""

    model: str
    version: str
    reproduced: bool = Field(description="Same training set, and the same answers.")
    same_training_set: bool = Field(description="Assembled again, it has the recorded digest.")
    same_bytes: bool = Field(description="The ONNX file is the same, byte for byte.")
    largest_difference: float = Field(
        description="Largest |answer - recorded| on real rows, of the largest answer "
        "where that is above 1."
    )
    rows: int = Field(description="Rows that both were asked.")
    seconds: float
    differences: tuple[Difference, ...] = Field(description="What is not as it was; may be empty.")


def reproduce(names: Names, version: str, stores: "Stores") -> Reproduction:
    """Train again from the recorded windows, declaration and seed, on the CPU, and compare.

    The training set is assembled again from today's tables; when that gives other rows, the
    difference is named, and the training goes on with the rows that were stored.

    Args:
        names: The model, as it is declared today.
        version: Registered version.
        stores: Where everything is.

    Raises:
        RegistryError: The version, or what is recorded of it, is not there.
        DeclarationError: Its declaration is of another release.
        StoreError: Its rows or bytes are gone.
        TrainingError: The training gave no usable model.
    """
    from aios_platform.training.trainer import train

    provenance = stores.registry.provenance(names.model, version)
    declaration = stores.registry.declaration(names.model, version)
    record = recall(stores.artifacts, names.model, provenance.version.training_set_digest)
    differences = [*_origin(names, declaration, provenance)]
    same_set, found = _assembled_again(declaration, record, stores)
    differences += found
    frame = training_frame(stores.artifacts, record)
    with tempfile.TemporaryDirectory() as folder:
        trained = train(
            declaration.training.model_copy(update={"accelerator": "cpu"}),
            record.features,
            frame,
            label=declaration.label.column,
            answers=declaration.answers,
            workdir=Path(folder),
        )
    rows = _compared_rows(frame)
    largest = _largest(stores, provenance.version.digest, trained.onnx, rows)
    same_answers = largest <= TOLERANCE
    if not same_answers:
        differences.append(
            Difference(
                what="answers on real rows",
                recorded=f"within {TOLERANCE:g}",
                now=f"up to {largest:.3g} apart",
            )
        )
    return Reproduction(
        model=names.model,
        version=version,
        reproduced=same_set and same_answers,
        same_training_set=same_set,
        same_bytes=trained.digest == provenance.version.digest,
        largest_difference=largest,
        rows=rows.num_rows,
        seconds=trained.seconds,
        differences=tuple(differences),
    )


def note_reproduction(database: "Database", found: Reproduction) -> int:
    """Write the result to the ledger, whatever it is.

    Returns:
        The row.

    Raises:
        AccessDenied: Who acts cannot be told.
    """
    from aios_platform.ledger.entries import append

    with database.begin() as connection:
        return append(
            connection,
            kind=REPRODUCTION,
            subject=found.model,
            payload=found.model_dump(mode="json"),
            key=f"{REPRODUCTION}:{uuid.uuid4().hex}",
        )


def _origin(
    names: Names, declaration: ModelDeclaration, provenance: Provenance
) -> list[Difference]:
    """What differs between the platform that trained it and today's."""
    from aios_platform.registry.origin import git_commit, library_versions, source_digests

    pairs = [
        ("git commit", provenance.git_commit, git_commit()),
        ("declaration", declaration.fingerprint, names.declaration.fingerprint),
        *(
            (f"source files: {part}", provenance.sources.get(part, "not recorded"), digest)
            for part, digest in source_digests(names.folder, names.sql_folder).items()
        ),
        *(
            (f"library {name}", provenance.libraries.get(name, "not recorded"), version)
            for name, version in library_versions().items()
        ),
    ]
    return [
        Difference(what=what, recorded=recorded[:60], now=now[:60])
        for what, recorded, now in pairs
        if recorded != now
    ]


def _assembled_again(
    declaration: ModelDeclaration, record: TrainingSet, stores: "Stores"
) -> tuple[bool, list[Difference]]:
    """Whether the windows, assembled from today's tables, are the recorded rows."""
    from aios_platform.features.training_set import assemble

    windows = [declaration.windows.window(key) for key in record.windows]
    try:
        frames = assemble(
            declaration,
            windows,
            datetime.fromisoformat(record.as_of),
            stores.artifacts,
            stores.features,
            # Under a name of its own, where nothing is ever taken as it lies.
            dataset=f"{declaration.name}/reproduction/{record.digest[:16]}",
        )
    except DatabaseUnavailable:
        raise
    except AiosError as error:
        return False, [
            Difference(what="training set", recorded=record.digest, now=f"not there: {error}")
        ]
    again = record.model_copy(update={"frames": frames.versions})
    found = [
        difference
        for was, now in zip(record.frames, frames.versions, strict=True)
        for difference in _inputs(was, now)
    ]
    if frames.service_digest != record.service_digest:
        found.append(
            Difference(
                what="feature service", recorded=record.service_digest, now=frames.service_digest
            )
        )
    same = again.digest == record.digest
    if not same:
        found.append(Difference(what="training set", recorded=record.digest, now=again.digest))
    return same, found


def _inputs(was: DatasetVersion, now: DatasetVersion) -> list[Difference]:
    """Tables of one window that were delivered or made again since, and the frame itself."""
    found = [
        Difference(
            what=f"data of {was.key}: {name}",
            recorded=was.inputs.get(name, "not used"),
            now=now.inputs.get(name, "not used"),
        )
        for name in sorted({*was.inputs, *now.inputs})
        if was.inputs.get(name) != now.inputs.get(name)
    ]
    if was.digest != now.digest:
        found.append(Difference(what=f"rows of {was.key}", recorded=was.digest, now=now.digest))
    return found


def _compared_rows(frame: "pa.Table | pad.Dataset") -> "pa.Table":
    import numpy as np
    import pyarrow as pa

    rows = frame.num_rows if isinstance(frame, pa.Table) else frame.count_rows()
    places = np.unique(np.linspace(0, rows - 1, min(COMPARED_ROWS, rows)).astype(np.int64))
    return frame.take(pa.array(places))


def _largest(stores: "Stores", recorded: str, onnx: bytes, rows: "pa.Table") -> float:
    import numpy as np

    from aios_platform.inference.session import Session

    if rows.num_rows == 0:
        raise StoreError("The training set has no rows.", remedy="Restore the artifact root.")
    before = Session(stores.artifacts.get(recorded, ".onnx"), digest=recorded).predict(rows)
    after = Session(onnx).predict(rows)
    # A number of float32 has seven digits, whatever its unit.
    scale = max(1.0, float(np.abs(before).max()))
    return float(np.abs(before.astype(np.float64) - after.astype(np.float64)).max()) / scale
