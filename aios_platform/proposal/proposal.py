"""From a profile to a declaration that runs, with the reasons as comments."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from aios_platform.columns import is_list, is_text
from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FieldKind
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.policy import Task
from aios_platform.contracts.record import nearest
from aios_platform.contracts.windows import Every, WindowSchedule
from aios_platform.data.delta import is_delta
from aios_platform.declarations import COMPONENT, parse
from aios_platform.errors import DataError
from aios_platform.features.canary import one_against_rest, single_feature_auc
from aios_platform.proposal.profile import (
    LONG_TEXT,
    ColumnProfile,
    Profile,
    is_number,
)

ROWS = "rows"
ROW_NUMBER, KNOWN_AT = "row_number", "label_known_at"
FEWEST_WINDOWS = 6
EXAM_ROWS = 300
SUSPICIOUS_AUC = 0.95
LARGEST_AUC = 0.8
MOST_CLASSES = 20
LONGEST_WINDOW = timedelta(days=32)


@dataclass(frozen=True)
class Wanted:
    """What the caller says of the data.

    Attributes:
        name: Name of the model.
        path: Path or fsspec URL of the file.
        label: Column to predict.
        time: Column of the time at which the prediction is asked for.
        maturity_days: Days after that time until the label is known.
        row_id: Column that names a row; None: one that does, or the row's number.
        every: Length of a window; None: the longest that gives enough windows.
        task: None: what the label looks like.
        timezone: Zone of times that are written without one.
    """

    name: str
    path: str
    label: str
    time: str
    maturity_days: float
    row_id: str | None = None
    every: Every | None = None
    task: Task | None = None
    timezone: str = "UTC"


@dataclass(frozen=True)
class Proposal:
    """What to write, and what to look at first.

    Attributes:
        attributes: Of the `defs.yaml`.
        declaration: The same, validated.
        warnings: Sentences about what may be wrong with the data or the proposal.
        windows: Keys of the windows that have rows, oldest first.
    """

    attributes: dict[str, Any]
    declaration: ModelDeclaration
    warnings: tuple[str, ...]
    windows: tuple[str, ...]


def propose(profile: Profile, wanted: Wanted) -> Proposal:
    """Propose a declaration.

    Args:
        profile: The data.
        wanted: What the caller says of it.

    Raises:
        DataError: The data cannot be a model's: no label, too few windows, nothing to look at.
        DeclarationError: The name is none of a model.
    """
    warnings: list[str] = []
    label = _column(profile, wanted.label, "--label")
    task, truth, classes = _label(label, wanted)
    every, schedule, keys = _windows(profile, wanted)
    row_id = _row_id(profile, wanted)
    columns: dict[str, dict[str, Any]] = {row_id: {"type": "string"}}
    columns[wanted.time] = {"type": "timestamp"}
    request = []
    for name, column in profile.columns.items():
        if name in (row_id, wanted.time, wanted.label):
            continue
        declared, why_not = _declared(column, profile.rows)
        if declared is None:
            warnings.append(f"'{name}' is left out: {why_not}.")
            continue
        columns[name] = declared
        request.append(name)
    if not request:
        raise DataError(
            f"{wanted.path} has no column that a model could look at.",
            remedy="Give a file with more than a label and a time.",
        )
    columns[wanted.label] = {**truth, "nullable": True, "known_at": KNOWN_AT}
    columns[KNOWN_AT] = {"type": "timestamp", "known_at": KNOWN_AT}
    separation = _separation(profile, wanted, task, classes, request, columns)
    for name, auc in separation.items():
        if auc > SUSPICIOUS_AUC:
            warnings.append(
                f"'{name}' alone tells the label with an AUC of {auc:.3f}: is it known when the "
                "prediction is asked for? If not, take it out of features.request."
            )
    typical = sorted(keys.values())[len(keys) // 2]
    exam = max(1, min(-(-EXAM_ROWS // typical), (len(keys) - 3) // 2))
    stored: dict[str, Any] = {
        "path": wanted.path,
        "timezone": wanted.timezone,
        "known_after_days": {KNOWN_AT: wanted.maturity_days},
    }
    if is_delta(wanted.path):
        stored["format"] = "delta"
    if row_id == ROW_NUMBER and is_delta(wanted.path):
        raise DataError(
            f"No column of the Delta table {wanted.path} names a row, and its rows have no number.",
            remedy="Add a column whose values are each there once, and name it with --id.",
        )
    if row_id == ROW_NUMBER:
        stored["row_number"] = ROW_NUMBER
    largest = max(separation.values(), default=0.5)
    attributes = {
        "name": wanted.name,
        "owner": "team:unknown",
        "task": task,
        "description": f"Predicts {wanted.label}.",
        "windows": {"every": str(every), "start": str(schedule.start), "end": str(schedule.end)},
        "source": {
            "stored": {ROWS: stored},
            "rows": ROWS,
            "prediction_time": wanted.time,
            "tables": {
                ROWS: {
                    "row_id": [row_id],
                    "timestamp": wanted.time,
                    "min_rows": max(1, typical // 10),
                    "volume_tolerance": None,
                    "columns": columns,
                }
            },
        },
        "features": {
            "request": request,
            **(
                {"max_single_feature_auc": round(min(largest + 0.02, 1.0), 2)}
                if largest > LARGEST_AUC
                else {}
            ),
        },
        "label": {
            "column": wanted.label,
            "known_at": KNOWN_AT,
            "maturity_days": wanted.maturity_days,
        },
        "training": {**_training(columns, request), "epochs": 20, "patience": 5,
                     "batch_size": 256},
        "exam": {"windows": exam},
        "gate": {"min_rows": max(20, min(1000, typical * exam // 2))} | _metric(task),
    }  # fmt: skip
    declaration = parse(attributes, Path(wanted.name))
    if typical * exam < EXAM_ROWS:
        warnings.append(
            f"An exam has about {typical * exam} rows; the gate will often be undecided."
        )
    return Proposal(attributes, declaration, tuple(warnings), tuple(keys))


def rendered(proposal: Proposal) -> str:
    """The text of the `defs.yaml`."""
    import yaml

    body = yaml.safe_dump(
        {"attributes": proposal.attributes},
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=100,
    )
    return (
        f"type: {COMPONENT}\n\n"
        "# Proposed from the data by `aios init`: correct what it cannot know. Ranges are those\n"
        "# seen, half as wide again on either side; docs/declaration.md describes every field.\n"
        f"{body}"
    )


def _column(profile: Profile, name: str, option: str) -> ColumnProfile:
    if name not in profile.columns:
        raise DataError(
            f"The file has no column '{name}'. {nearest(name, profile.columns)}",
            remedy=f"Correct {option}.",
        )
    return profile.columns[name]


def _label(column: ColumnProfile, wanted: Wanted) -> tuple[Task, dict[str, Any], tuple[str, ...]]:
    values = column.values
    zero_one = values is not None and {float(v) for v in values if is_number(column.type)} == {0, 1}
    whole = pa.types.is_integer(column.type)
    looks: Task | None = None
    if pa.types.is_boolean(column.type) or (whole and zero_one):
        looks = "binary_classification"
    elif values is not None and len(values) <= MOST_CLASSES and is_text(column.type):
        looks = "multiclass_classification"
    elif is_number(column.type):
        looks = "regression"
    task = wanted.task or looks
    if task is None:
        raise DataError(
            f"The label '{column.name}' of type {column.type} is neither yes or no, one of a few "
            "texts, nor a number.",
            remedy="Name another label, or prepare it.",
        )
    if task == "multiclass_classification":
        classes = tuple(sorted(str(value) for value in values or ()))
        return task, {"type": "string", "values": list(classes)}, classes
    if task == "binary_classification":
        return task, {"type": "bool"}, ()
    return task, {"type": "float"}, ()


def _windows(profile: Profile, wanted: Wanted) -> tuple[Every, WindowSchedule, dict[str, int]]:
    first, last = min(profile.days), max(profile.days)
    found = None
    for every in [wanted.every] if wanted.every else (Every.MONTH, Every.WEEK, Every.DAY):
        schedule, keys = _schedule(every, first, last, profile.days)
        found = (every, schedule, keys)
        if len(keys) >= FEWEST_WINDOWS:
            break
    assert found is not None
    if len(found[2]) < FEWEST_WINDOWS:
        raise DataError(
            f"The rows of {wanted.path} lie in {len(found[2])} windows of a {found[0]}; at least "
            f"{FEWEST_WINDOWS} are needed to train, examine, and watch.",
            remedy="Give data over a longer time, or shorter --windows.",
        )
    return found


def _schedule(
    every: Every, first: datetime, last: datetime, days: dict[datetime, int]
) -> tuple[WindowSchedule, dict[str, int]]:
    start = first.date().replace(day=1) if every is Every.MONTH else first.date()
    if every is Every.WEEK:
        start -= timedelta(days=start.weekday())
    endless = WindowSchedule(every=every, start=start)
    keys: dict[str, int] = {}
    end = start
    for window in endless.windows(last + LONGEST_WINDOW):
        if window.start > last:
            break
        count = sum(n for day, n in days.items() if window.start <= day < window.end)
        if count:
            keys[window.key] = count
        end = window.end.date()
    return WindowSchedule(every=every, start=start, end=end), keys


def _row_id(profile: Profile, wanted: Wanted) -> str:
    if wanted.row_id is not None:
        return _column(profile, wanted.row_id, "--id").name
    return ROW_NUMBER


def _declared(column: ColumnProfile, rows: int) -> tuple[dict[str, Any] | None, str]:
    """How a column is declared; None and why where no model can use it."""
    kind = column.type
    if column.nulls == rows:
        return None, "it has no value"
    if column.values is not None and len(column.values) == 1 and not column.nulls:
        return None, "it has one value only"
    nullable = {"nullable": True} if column.nulls else {}
    if pa.types.is_boolean(kind):
        return {"type": "bool", **nullable}, ""
    if is_number(kind):
        name = "int" if pa.types.is_integer(kind) else "float"
        return {"type": name, **nullable, **_range(column)}, ""
    if is_list(kind) and len(column.lengths) == 1 and is_number(kind.value_type):
        (length,) = column.lengths
        return {"type": "vector", "length": length, **nullable, **_range(column)}, ""
    if is_text(kind):
        if column.values is None and column.mean_length > LONG_TEXT:
            return {"type": "text", **nullable}, ""
        return {"type": "string", **nullable}, ""
    return None, f"its type {kind} is none that a model takes"


def _range(column: ColumnProfile) -> dict[str, float]:
    if column.low is None or column.high is None:
        return {}
    margin = (column.high - column.low) / 2
    low, high = column.low - margin, column.high + margin
    if column.low >= 0:
        low = max(low, 0.0)
    return {"min": float(f"{low:.6g}"), "max": float(f"{high:.6g}")}


def _separation(
    profile: Profile,
    wanted: Wanted,
    task: Task,
    classes: tuple[str, ...],
    request: Sequence[str],
    columns: dict[str, dict[str, Any]],
) -> dict[str, float]:
    """How well each number or category tells the label by itself, in the sample."""
    sample = profile.sample.filter(profile.sample[wanted.label].is_valid())
    truth = sample[wanted.label]
    if classes:
        truth = truth.cast(pa.string())
    elif task == "binary_classification":
        truth = truth.cast(pa.bool_())
    truths = one_against_rest(truth, AnswerSchema(task=task, classes=classes))
    found = {}
    for name in request:
        kind = columns[name]["type"]
        if kind in ("vector", "text"):
            continue
        category = kind == "string"
        values = sample[name] if category else sample[name].cast(pa.float64(), safe=False)
        how = FieldKind.CATEGORICAL if category else FieldKind.NUMERICAL
        found[name] = max(single_feature_auc(values, each, how) for each in truths)
    return found


def _training(columns: dict[str, dict[str, Any]], request: Sequence[str]) -> dict[str, Any]:
    texts = any(columns[name]["type"] == "text" for name in request)
    return {"network": "text_embedding"} if texts else {}


def _metric(task: Task) -> dict[str, Any]:
    """Of few rows, guards would leave the gate undecided for ever."""
    if task == "binary_classification":
        return {"metric": "roc_auc", "margin": 0.02, "guards": {}}
    if task == "multiclass_classification":
        return {"metric": "accuracy", "margin": 0.03, "guards": {}}
    return {"metric": "r2", "margin": 0.03, "guards": {}}
