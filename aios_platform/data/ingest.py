"""Ingesting one window: read, validate, quarantine, write. Good data becomes current, or nothing.

Datasets written, key = window::

    <model>/quarantine/<table>   bad rows with their reasons
    <model>/validation           every expectation of every table
    <model>/raw/<table>          good rows; the table of predicted rows last

A process killed on the way leaves the raw tables that were not yet written as they were; the
same call then finishes the work, and a call after that changes nothing.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import pyarrow as pa

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.contracts.declaration import ModelDeclaration, Source
from aios_platform.contracts.record import Record, digest_of, nearest
from aios_platform.contracts.windows import Window
from aios_platform.data.canonical import canonical, content_digest, schema_faults
from aios_platform.data.quarantine import Split, split
from aios_platform.data.rules import Rule, row_rules
from aios_platform.data.source import read_source
from aios_platform.data.validation import (
    ExpectationResult,
    ValidationReport,
    figures,
    validate,
)
from aios_platform.errors import ArtifactCorrupt, ArtifactMissing, WindowRejected
from aios_platform.known import INSTANT, anything_known_after, as_known

RECENT_WINDOWS = 6
# Part of every version's inputs: a change in how rows are judged or written makes them stale.
CODE_VERSION = "1"
REPORT_SCHEMA = pa.schema([("table", pa.string()), ("report", pa.string())])


class IngestResult(Record):
    """What ingesting a window made.

    Args:
        window: Key of the window.
        versions: Current version of each raw table.
        quarantine: Current version of each quarantine table.
        reports: What validation found, per table.
        changed: Whether anything was written; False for a delivery that was already there.
    """

    window: str
    versions: dict[str, DatasetVersion]
    quarantine: dict[str, DatasetVersion]
    reports: tuple[ValidationReport, ...]
    changed: bool

    @property
    def quarantined(self) -> dict[str, int]:
        """Quarantined rows per table."""
        return {table: version.rows for table, version in self.quarantine.items()}

    @property
    def quarantined_rows(self) -> int:
        """Quarantined rows of all tables."""
        return sum(self.quarantined.values())


def _wall_clock() -> datetime:
    return datetime.now(UTC)


def ingest_window(
    declaration: ModelDeclaration,
    window: Window,
    store: ArtifactStore,
    *,
    clock: Callable[[], datetime] = _wall_clock,
    as_of: datetime | None = None,
) -> IngestResult:
    """Ingest one window, or leave everything as it was.

    Args:
        declaration: The model.
        window: The window.
        store: Where the datasets are written.
        clock: Gives the time of delivery; nothing can have become known later.
        as_of: For a look at the past: what became known after this moment is left out of the
            delivery, as if it had been made then.

    Raises:
        DeclarationError: The source's entrypoint does not exist.
        SourceError: The source failed.
        WindowNotDelivered: It has nothing of the window yet.
        WindowRejected: The delivery is unusable; everything wrong with it is listed.
        DataError: Great Expectations failed to evaluate an expectation.
        StoreError: Nothing could be written; what was current stays so.
    """
    now = clock()
    if not now >= window.end:
        raise WindowRejected(
            f"The window {window} of '{declaration.name}' is over at {window.end.isoformat()} "
            f"only; it is {now.isoformat()}.",
            remedy="Ingest it when it is over.",
        )
    delivered = read_source(declaration.source, window)
    faults = _table_faults(declaration.source, delivered)
    tables: dict[str, pa.Table] = {}
    for name, declared in declaration.source.tables.items():
        if name not in delivered:
            continue
        wrong = schema_faults(delivered[name].schema, declared)
        if not wrong:
            try:
                whole = canonical(delivered[name], declared)
                tables[name] = whole if as_of is None else _by(declaration, name, whole, as_of)
            except pa.ArrowInvalid as error:
                wrong = {name: f"a value does not fit the declared type: {error}."}
        faults += [f"{name}: {fault}" for fault in wrong.values()]
    if faults:
        # A table of the right schema is still judged, so that one rejection tells everything.
        faults += _judged_faults(declaration, window, store, tables, now)
        raise _rejected(declaration, window, faults)
    ingest = _Ingest(declaration, window, store, tables, now)
    return ingest.unchanged() or ingest.run()


def _by(declaration: ModelDeclaration, name: str, table: pa.Table, as_of: datetime) -> pa.Table:
    """A delivered table as it would have been at a moment."""
    declared, moment = declaration.source.tables[name], pa.scalar(as_of, INSTANT)
    if not anything_known_after(table, declared, moment):
        return table
    label = declaration.label if name == declaration.source.rows else None
    return as_known(table, declared, moment, label)


class _Ingest:
    """One delivery of the right schema on its way into the store."""

    def __init__(
        self,
        declaration: ModelDeclaration,
        window: Window,
        store: ArtifactStore,
        tables: Mapping[str, pa.Table],
        now: datetime,
    ) -> None:
        self.declaration, self.window, self.store = declaration, window, store
        self.tables, self.now = tables, now
        self.inputs = {name: self._inputs(name) for name in tables}
        # Those who ask for the predicted rows find the other tables in place already.
        self.order = sorted(tables, key=lambda name: name == declaration.source.rows)

    def unchanged(self) -> IngestResult | None:
        """The result of the last ingest, if it was of this very delivery and is complete."""
        raw = {name: self._whole(self._raw(name), self.inputs[name]) for name in self.order}
        bad = {name: self._whole(self._bad(name), self.inputs[name]) for name in self.order}
        report = self._whole(self._validation, self._all_inputs)
        if report is None or not all(raw.values()) or not all(bad.values()):
            return None
        rows = self.store.read(report).to_pylist()
        return IngestResult(
            window=self.window.key,
            versions={name: v for name, v in raw.items() if v},
            quarantine={name: v for name, v in bad.items() if v},
            reports=tuple(ValidationReport.model_validate_json(row["report"]) for row in rows),
            changed=False,
        )

    def run(self) -> IngestResult:
        """Judge the delivery and write it."""
        judged = {name: self._judge(name) for name in self.order}
        failed = {name: report for name, (_, report) in judged.items() if not report.success}
        if failed:
            faults = [f for name, report in failed.items() for f in self._explained(name, report)]
            raise _rejected(self.declaration, self.window, faults)
        key, reports = self.window.key, tuple(report for _, report in judged.values())
        quarantine = {
            name: self.store.write(self._bad(name), key, parts.bad, inputs=self.inputs[name])
            for name, (parts, _) in judged.items()
        }
        texts = [report.model_dump_json() for report in reports]
        table = pa.table([[r.table for r in reports], texts], schema=REPORT_SCHEMA)
        self.store.write(self._validation, key, table, inputs=self._all_inputs)
        raw = {
            name: self.store.write(self._raw(name), key, parts.good, inputs=self.inputs[name])
            for name, (parts, _) in judged.items()
        }
        return IngestResult(
            window=key, versions=raw, quarantine=quarantine, reports=reports, changed=True
        )

    def faults(self) -> list[str]:
        """Everything wrong with the tables, as sentences."""
        reports = {name: self._judge(name)[1] for name in self.order}
        return [f for name, report in reports.items() for f in self._explained(name, report)]

    def _judge(self, name: str) -> tuple[Split, ValidationReport]:
        source, table = self.declaration.source, self.tables[name]
        declared, rules = source.tables[name], self._rules(name)
        found = figures(table, declared, rules)
        broken = any(count for _, _, count in found.broken)
        parts = split(table, declared, rules) if broken else Split.clean(table)
        report = validate(
            name,
            declared,
            found,
            window=self.window,
            now=self.now,
            quarantined=parts.bad.num_rows,
            max_quarantine_share=source.max_quarantine_share,
            recent_rows=self._recent_rows(name),
        )
        return parts, report

    def _explained(self, name: str, report: ValidationReport) -> list[str]:
        from aios_platform.data.explanation import examples

        declared = self.declaration.source.tables[name]
        failures = examples(
            self.tables[name], declared, report.failures, window=self.window, now=self.now
        )
        reasons = {(rule.name, rule.column): rule.reason for rule in self._rules(name)}
        return [f"{name}: {_sentence(f, report, reasons)}" for f in failures]

    def _rules(self, name: str) -> list[Rule]:
        return row_rules(self.declaration.source, name, self.window, self.now)

    def _recent_rows(self, name: str) -> list[int]:
        schedule, found = self.declaration.windows, []
        for back in range(1, RECENT_WINDOWS + 1):
            key = schedule.shift(self.window.key, -back)
            version = self.store.current(self._raw(name), key) if key else None
            found += [version.rows] if version else []
        return found

    def _inputs(self, name: str) -> dict[str, str]:
        source = self.declaration.source
        return {
            "source": content_digest(self.tables[name]),
            "declaration": digest_of(
                [source.tables[name].fingerprint, source.max_quarantine_share, CODE_VERSION]
            ),
        }

    @property
    def _all_inputs(self) -> dict[str, str]:
        return {f"{n}/{k}": v for n in self.order for k, v in self.inputs[n].items()}

    def _whole(self, dataset: str, inputs: Mapping[str, str]) -> DatasetVersion | None:
        """The current version if it was made from these inputs and its file is not damaged."""
        version = self.store.fresh(dataset, self.window.key, inputs)
        if version is None:
            return None
        try:
            self.store.scan([version])
        except (ArtifactCorrupt, ArtifactMissing):
            return None
        return version

    def _raw(self, name: str) -> str:
        return f"{self.declaration.name}/raw/{name}"

    def _bad(self, name: str) -> str:
        return f"{self.declaration.name}/quarantine/{name}"

    @property
    def _validation(self) -> str:
        return f"{self.declaration.name}/validation"


def _judged_faults(
    declaration: ModelDeclaration,
    window: Window,
    store: ArtifactStore,
    tables: Mapping[str, pa.Table],
    now: datetime,
) -> list[str]:
    return _Ingest(declaration, window, store, tables, now).faults() if tables else []


def _table_faults(source: Source, delivered: Mapping[str, pa.Table]) -> list[str]:
    faults = []
    for name in source.tables:
        if name not in delivered:
            extra = [n for n in delivered if n not in source.tables]
            hint = f" {nearest(name, extra)}" if extra else ""
            faults.append(f"the table '{name}' is missing.{hint}")
    return faults + [
        f"the table '{name}' is not declared." for name in delivered if name not in source.tables
    ]


def _sentence(
    failure: ExpectationResult,
    report: ValidationReport,
    reasons: Mapping[tuple[str, str], str],
) -> str:
    match failure.name:
        case "row_count":
            return f"{report.rows:,} rows; at least {failure.low:,.0f} are expected."
        case "volume":
            return (
                f"{report.rows:,} rows; {failure.low:,.0f} to {failure.high:,.0f} are usual "
                "by the windows before."
            )
        case "quarantined_share":
            share = 100 * (failure.observed or 0.0)
            return (
                f"{report.quarantined:,} of {report.rows:,} rows ({share:.1f} %) are bad; "
                f"at most {100 * (failure.high or 0.0):g} % may be."
            )
        case "freshness":
            if failure.observed is None:
                return "no row has a time."
            return (
                f"the newest row is {failure.observed:,.1f} hours older than the window's end; "
                f"at most {failure.high:g} are expected."
            )
    reason = reasons.get((failure.name, failure.column or ""), f"{failure.column}: not unique")
    shown = f", e.g. {', '.join(failure.examples)}" if failure.examples else ""
    return f"{reason} in {failure.observed or 0:,.0f} rows{shown}."


def _rejected(declaration: ModelDeclaration, window: Window, faults: list[str]) -> WindowRejected:
    listed = "\n".join(f"  - {fault}" for fault in faults)
    return WindowRejected(
        f"The window {window} of '{declaration.name}' is rejected:\n{listed}\n",
        remedy="Mend the source and ingest the window again, or correct the declaration. "
        "The last good version stays current.",
    )
