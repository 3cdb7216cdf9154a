"""The drift report for people: Evidently over a sample of both sides, as one HTML file.

The figures that decide are those of `drift`, over all rows; this report is to look at. Names and
values are made inert first: Evidently writes them into the page as they come.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.contracts.declaration import Monitoring

MAX_COLUMNS = 24
MIN_ROWS = 10
_LONGEST = 60
# Look-alikes, not entities: they stay harmless however often a page decodes them.
_INERT = str.maketrans(
    {"<": "‹", ">": "›", "&": "＆", '"': "”", "'": "’", "`": "’", "\\": "＼", "$": "＄"}  # noqa: RUF001
)


@dataclass(frozen=True)
class DriftPage:
    """An HTML report, and Evidently's own figures.

    Attributes:
        html: A page that needs nothing from outside, UTF-8.
        figures: PSI by column, of the sample.
        rows: Sampled rows of the window.
        reference_rows: Sampled rows of the reference.
        left_out: Columns of the window that the page does not show.
    """

    html: bytes
    figures: dict[str, float]
    rows: int
    reference_rows: int
    left_out: tuple[str, ...]


def drift_page(
    *,
    frame: pa.Table,
    reference: pa.Table,
    fields: Sequence[FeatureField],
    monitoring: Monitoring,
    max_columns: int = MAX_COLUMNS,
) -> DriftPage | None:
    """Render a window against a reference.

    Args:
        frame: The window's feature frame.
        reference: Rows the champion was trained on, or a sample of them.
        fields: Columns to show, the most interesting first; the first `max_columns` that have
            values on both sides are shown, since each costs about 0.1 s and 0.1 MB.
        monitoring: The declared bounds and sample size.
        max_columns: Most columns shown.

    Returns:
        The page; None when there are too few rows or values to show anything.
    """
    current, past = (sample(table, monitoring.report_rows) for table in (frame, reference))
    with_values = [f for f in fields if _shows(current, f.name) and _shows(past, f.name)]
    shown = with_values[:max_columns]
    if not shown or min(current.num_rows, past.num_rows) < MIN_ROWS:
        return None
    names = _inert_names([field.name for field in shown])
    numerical = [n for n, f in zip(names, shown, strict=True) if f.kind is FieldKind.NUMERICAL]
    categorical = [n for n, f in zip(names, shown, strict=True) if f.kind is FieldKind.CATEGORICAL]

    with warnings.catch_warnings():
        # Its modules do not compile without warnings, and it correlates constant columns.
        warnings.simplefilter("ignore")
        snapshot = _run(
            _plain(current, shown, names),
            _plain(past, shown, names),
            numerical,
            categorical,
            monitoring,
        )
        html = snapshot.get_html_str(as_iframe=False)
    original = dict(zip(names, (field.name for field in shown), strict=True))
    return DriftPage(
        html=html.encode(),
        figures={
            original[metric["config"]["column"]]: float(metric["value"])
            for metric in snapshot.dict()["metrics"]
            if metric["config"].get("column") in original
        },
        rows=current.num_rows,
        reference_rows=past.num_rows,
        left_out=tuple(f.name for f in fields if f not in shown),
    )


def _run(
    current: Any, past: Any, numerical: list[str], categorical: list[str], monitoring: Monitoring
) -> Any:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=numerical, categorical_columns=categorical)
    report = Report(
        [
            DataDriftPreset(
                columns=list(current.columns),
                drift_share=monitoring.drift_share,
                num_method="psi",
                num_threshold=monitoring.drift_psi,
                cat_method="psi",
                cat_threshold=monitoring.drift_psi,
            )
        ]
    )
    return report.run(
        Dataset.from_pandas(current, data_definition=definition),
        Dataset.from_pandas(past, data_definition=definition),
    )


def sample(table: pa.Table, rows: int) -> pa.Table:
    """At most this many rows, the same ones for the same table, in their order."""
    if table.num_rows <= rows:
        return table
    chosen = np.random.default_rng(0).choice(table.num_rows, rows, replace=False)
    return table.take(pa.array(np.sort(chosen)))


def _shows(table: pa.Table, name: str) -> bool:
    return name in table.column_names and _present(table[name]).any()


def _present(column: pa.ChunkedArray) -> Any:
    if pa.types.is_floating(column.type):
        return np.isfinite(column.cast(pa.float64()).to_numpy())
    return pc.is_valid(column).to_numpy()


def _inert(text: str) -> str:
    printable = "".join(c if c.isprintable() else "�" for c in text.translate(_INERT))
    return printable if len(printable) <= _LONGEST else f"{printable[: _LONGEST - 1]}…"


def _inert_names(names: Sequence[str]) -> list[str]:
    """Names that cannot act, all different."""
    found: list[str] = []
    for name in names:
        inert = _inert(name)
        found.append(inert if inert not in found else f"{inert} ({len(found)})")
    return found


def _plain(table: pa.Table, fields: Sequence[FeatureField], names: Sequence[str]) -> Any:
    """A pandas frame of float64 and inert strings, which is all that Evidently has to handle."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for name, field in zip(names, fields, strict=True):
        column = table[field.name]
        if field.kind is FieldKind.NUMERICAL:
            numbers = column.cast(pa.float64(), safe=False).to_numpy().copy()
            numbers[~np.isfinite(numbers)] = np.nan
            columns[name] = numbers
        else:
            values = column.cast(pa.string()).to_pylist()
            columns[name] = pd.Series(
                [None if value is None else _inert(value) for value in values], dtype=object
            )
    return pd.DataFrame(columns)
