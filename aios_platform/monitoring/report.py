"""The drift report for people: Evidently over a sample of both sides, as one HTML file.

The figures that decide are those of `drift`, over all rows; this report is to look at. Names and
values are made inert first: Evidently writes them into the page as they come.
"""

import html
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.contracts.surveillance import Monitoring
from aios_platform.monitoring.drift import DriftReport
from aios_platform.monitoring.sampling import sample
from aios_platform.monitoring.statistics import measured, measured_fields

MAX_COLUMNS = 24
FEWEST_COLUMNS = 8
MIN_ROWS = 10
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
    report: DriftReport | None = None,
    max_columns: int = MAX_COLUMNS,
) -> DriftPage | None:
    """Render a window against a reference.

    Args:
        frame: The window's feature frame.
        reference: Rows the champion was trained on, or a sample of them.
        fields: Columns to show, the drifted first (vectors and texts by their statistics). Of those
            that have values on both sides as many are shown as drifted, since each costs about
            0.04 s and weighs on the page: at least 8 and at most `max_columns`.
        monitoring: The declared bounds and sample size.
        report: What was found over all rows; written above Evidently's view.
        max_columns: Most columns shown.

    Returns:
        The page; None when there are too few rows or values to show anything.
    """
    current, past = (
        measured(sample(table, monitoring.report_rows), fields) for table in (frame, reference)
    )
    fields = measured_fields(fields)
    with_values = [f for f in fields if _shows(current, f.name) and _shows(past, f.name)]
    drifted = max_columns if report is None else len(report.drifted)
    shown = with_values[: min(max(drifted, FEWEST_COLUMNS), max_columns)]
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
        page = snapshot.get_html_str(as_iframe=False)
    if report is not None:
        page = _headed(page, report, len(shown), (current.num_rows, past.num_rows))
    original = dict(zip(names, (field.name for field in shown), strict=True))
    return DriftPage(
        html=page.encode(),
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
    from evidently.core.metric_types import Metric
    from evidently.metrics import ValueDrift

    definition = DataDefinition(numerical_columns=numerical, categorical_columns=categorical)
    # Not the preset: it draws every column twice, and counts the shown columns as if they were all.
    metrics: list[Metric] = [
        ValueDrift(column=name, method="psi", threshold=monitoring.drift_psi)
        for name in current.columns
    ]
    return Report(metrics).run(
        Dataset.from_pandas(current, data_definition=definition),
        Dataset.from_pandas(past, data_definition=definition),
    )


def _headed(page: str, report: DriftReport, shown: int, sampled: tuple[int, int]) -> str:
    """The page with the figures that decide above Evidently's."""
    mark = page.index("<body>") + len("<body>")
    rows = "".join(
        f"<tr><td>{_text(c.name)}</td><td>{_text(c.status)}</td><td>{_share(c.psi, '.3f')}</td>"
        f"<td>{_share(c.importance, '.1%')}</td><td>{_share(c.adjusted_p, '.2g')}</td>"
        f"<td>{_share(c.reference_missing, '.1%')}</td><td>{_share(c.missing, '.1%')}</td></tr>"
        for c in sorted(report.columns, key=lambda c: -(c.psi if c.psi is not None else -1))
    )
    return f"""{page[:mark]}
<style>
.aios {{font: 14px/1.5 Roboto, Helvetica, Arial, sans-serif; margin: 24px 32px 0; color: #222}}
.aios h1 {{font-size: 22px; margin: 0 0 4px}}
.aios td, .aios th {{padding: 2px 16px 2px 0; text-align: left; font-size: 13px}}
.aios summary {{cursor: pointer; margin: 8px 0}}
</style>
<div class="aios">
<h1>Drift of {_text(report.model)}, window {_text(report.window)}: {_text(report.status)}</h1>
<p>{_text(report.reason)} All {report.rows:,} rows against {report.reference_rows:,} that the
champion was trained on.</p>
<details><summary>All columns</summary>
<table><tr><th>column</th><th>status</th><th>PSI</th><th>importance</th>
<th>adjusted p</th><th>missing before</th><th>missing now</th></tr>
{rows}</table></details>
<p>Below: Evidently's view of {shown} columns, the most drifted and then the most important first,
on {sampled[0]:,} rows of the window and {sampled[1]:,} of the reference.</p>
</div>{page[mark:]}"""


def _text(value: str) -> str:
    return html.escape(_inert(str(value), longest=500))


def _share(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _shows(table: pa.Table, name: str) -> bool:
    return name in table.column_names and _present(table[name]).any()


def _present(column: pa.ChunkedArray) -> Any:
    if pa.types.is_floating(column.type):
        return np.isfinite(column.cast(pa.float64()).to_numpy())
    return pc.is_valid(column).to_numpy()


def _inert(text: str, longest: int = 60) -> str:
    printable = "".join(c if c.isprintable() else "�" for c in text.translate(_INERT))
    return printable if len(printable) <= longest else f"{printable[: longest - 1]}…"


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
