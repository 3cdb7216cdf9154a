"""Follows one row through a model: from its source to its features, its answer and its label."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import Field

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.scorers import scorer_of
from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FieldKind
from aios_platform.contracts.record import Record
from aios_platform.errors import LifecycleError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from aios_platform.inference.session import Session
    from aios_platform.resources.stores import Stores


class FollowedFeature(Record):
    """One input of the model, as it was for the row."""

    name: str
    kind: FieldKind
    origin: str = Field(description="'request', or the feature view that delivered it.")
    value: float | str | None = Field(description="None: missing; of a vector, what is in it.")
    moves: float = Field(
        description="How much the answer is higher with it than with it missing, everything else "
        "as it is."
    )


class StoredAnswer(Record):
    """What batch inference answered for the row."""

    version: str
    answer: dict[str, float]


class Followed(Record):
    """A row on its way through a model."""

    model: str
    row: str
    window: str
    version: str
    prediction_time: datetime
    source: dict[str, str | None] = Field(description="The row as it was delivered.")
    features: tuple[FollowedFeature, ...] = Field(description="Those that move it most first.")
    answer: dict[str, float] = Field(description="By answer column, computed now.")
    asked: str = Field(description="The answer column that `moves` is about.")
    stored: StoredAnswer | None = Field(description="None: its window was not scored.")
    label: str | None = Field(description="None: not known yet.")
    known_at: datetime | None


def follow(
    names: Names,
    row: str,
    stores: "Stores",
    *,
    version: str | None = None,
    window: str | None = None,
) -> Followed:
    """Follow a row of an ingested window through a version.

    Args:
        names: The model.
        row: Its id.
        stores: Where everything is.
        version: A version that was trained; None: the live one.
        window: Key of its window; None: the newest window that has it.

    Raises:
        LifecycleError: No window has the row, or there is no such version.
        FeatureError: The feature service is wrong.
        ScoringError: The version does not take the row.
        DatabaseUnavailable: The ledger cannot be read.
        ArtifactMissing: A table is gone.
    """
    from aios_platform.features.training_set import scoring_frame
    from aios_platform.inference.session import Session
    from aios_platform.ledger.champions import champion_of

    declaration, store = names.declaration, stores.artifacts
    if version is None:
        champion = champion_of(stores.database, names.model)
        if champion is None:
            raise LifecycleError(
                f"{names.model} has no live version.",
                remedy=f"Name one with --version, or train: `aios run {names.model}`.",
            )
    else:
        champion = scorer_of(names, stores.database, version)
    key, source = _source(names, row, stores, window)
    frames = scoring_frame(declaration, declaration.windows.window(key), store, stores.features)
    mine = _row(store.read(frames.versions[0]), declaration.source.row_id, row)
    session = Session(store.get(champion.model_digest, ".onnx"), digest=champion.model_digest)
    answers, place, moves = _moves(session, mine, frames.schema.names)
    label = declaration.label
    return Followed(
        model=names.model,
        row=row,
        window=key,
        version=champion.version,
        prediction_time=mine[declaration.source.prediction_time][0].as_py(),
        source={name: _text(source[name][0].as_py()) for name in source.column_names},
        features=tuple(
            FollowedFeature(
                name=field.name,
                kind=field.kind,
                origin=field.origin,
                value=_value(mine[field.name][0].as_py()),
                moves=moves[field.name],
            )
            for field in sorted(frames.schema.fields, key=lambda f: (-abs(moves[f.name]), f.name))
        ),
        answer=answers,
        asked=session.answers.columns[place],
        stored=_stored(names, row, stores, key, session.answers),
        label=_text(source[label.column][0].as_py()),
        known_at=source[label.known_at][0].as_py(),
    )


def _source(names: Names, row: str, stores: "Stores", window: str | None) -> tuple[str, "pa.Table"]:
    """The window that has the row, and the row as it was delivered."""
    store = stores.artifacts
    keys = sorted(store.keys(names.raw_rows), reverse=True)
    if window is not None:
        store.require(names.raw_rows, window)
        keys = [window]
    for key in keys:
        found = _row(
            store.read(store.require(names.raw_rows, key)), names.declaration.source.row_id, row
        )
        if found.num_rows:
            return key, found
    where = f"window {window}" if window else f"any of the {len(keys)} ingested windows"
    raise LifecycleError(
        f"{names.model} has no row '{row}' in {where}.",
        remedy=f"The id is a value of the column '{names.declaration.source.row_id}'; "
        f"`aios run {names.model}` ingests what has come.",
    )


def _row(table: "pa.Table", row_id: str, row: str) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.equal(table[row_id].cast(pa.string()), row)).slice(0, 1)


def _moves(
    session: "Session", mine: "pa.Table", names: tuple[str, ...]
) -> tuple[dict[str, float], int, dict[str, float]]:
    """The answer, the place of the answer column that is asked about, and what moves it."""
    import pyarrow as pa

    rows = [mine]
    for name in names:
        place = mine.schema.get_field_index(name)
        field = mine.schema.field(place)
        rows.append(mine.set_column(place, field, pa.nulls(1, field.type)))
    scores = session.predict(pa.concat_tables(rows))
    found: NDArray[Any] = scores.reshape(len(rows), -1)
    # Of several classes the likeliest; of a regression its value, not a quantile.
    several = bool(session.answers.classes)
    place = int(found[0].argmax()) if several else 0
    answer = dict(zip(session.answers.columns, found[0].tolist(), strict=True))
    gains = found[0, place] - found[1:, place]
    return answer, place, dict(zip(names, gains.tolist(), strict=True))


def _stored(
    names: Names, row: str, stores: "Stores", key: str, answers: AnswerSchema
) -> StoredAnswer | None:
    scored = stores.artifacts.current(names.predictions, key)
    if scored is None:
        return None
    found = _row(stores.artifacts.read(scored), names.declaration.source.row_id, row)
    if not found.num_rows:
        return None
    values: Mapping[str, Any] = found.to_pylist()[0]
    columns = [name for name in answers.columns if name in values]
    return StoredAnswer(
        version=str(values["model_version"]), answer={name: values[name] for name in columns}
    )


def _value(found: Any) -> float | str | None:
    if isinstance(found, list):
        numbers = [number for number in found if number is not None]
        return f"{len(found)} numbers from {min(numbers):.4g} to {max(numbers):.4g}"
    return found if found is None or isinstance(found, str) else float(found)


def _text(found: Any) -> str | None:
    if isinstance(found, list | bytes):
        return f"{len(found)} {'bytes' if isinstance(found, bytes) else 'numbers'}"
    return None if found is None else str(found)
