"""Searches a window's delivered tables for data faults, and knows which windows have one."""

from typing import TYPE_CHECKING

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.documents import (
    as_json,
    document_keys,
    find_document,
    write_document,
)
from aios_platform.components.model_lifecycle.names import Names

if TYPE_CHECKING:
    from aios_platform.monitoring.faults import FaultReport
    from aios_platform.monitoring.summaries import TableSummary

FAULTS = "faults"
# Enough to see how much a window varies by itself; more would hide a season's turn.
HISTORY = 3
LOOK_BACK = 12


def search_faults(names: Names, store: ArtifactStore, key: str) -> "FaultReport":
    """Look for faults in a window, against the last ones without; the report is kept."""
    from aios_platform.monitoring.faults import find_faults

    declaration = names.declaration
    report = find_faults(
        key,
        _summaries(names, store, key),
        {earlier: _summaries(names, store, earlier) for earlier in _history(names, store, key)},
        declaration.source.tables,
        max_quarantine_share=declaration.source.max_quarantine_share,
        exempt=declaration.monitoring.fault_exempt,
    )
    write_document(names, store, FAULTS, key, report)
    return report


def faulty_keys(names: Names, store: ArtifactStore) -> frozenset[str]:
    """Windows with a data fault; no model is trained or examined on them."""
    keys = document_keys(names, store, FAULTS)
    return frozenset(key for key in keys if _has_fault(names, store, key))


def _has_fault(names: Names, store: ArtifactStore, key: str) -> bool:
    from aios_platform.monitoring.faults import FaultReport

    report = find_document(names, store, FAULTS, key, FaultReport)
    return report is not None and bool(report.faults)


def _history(names: Names, store: ArtifactStore, key: str) -> list[str]:
    """The last windows before this one that have rows and no fault, oldest first."""
    found: list[str] = []
    for back in range(1, LOOK_BACK + 1):
        earlier = names.declaration.windows.shift(key, -back)
        if earlier is None or len(found) == HISTORY:
            break
        if store.current(names.raw_rows, earlier) and not _has_fault(names, store, earlier):
            found.insert(0, earlier)
    return found


def _summaries(names: Names, store: ArtifactStore, key: str) -> "dict[str, TableSummary]":
    """Each table of a window in a few numbers; made once per version of the table."""
    from aios_platform.monitoring.summaries import TableSummary, summarise

    found = {}
    for table, declared in names.declaration.source.tables.items():
        version = store.current(f"{names.model}/raw/{table}", key)
        bad = store.current(f"{names.model}/quarantine/{table}", key)
        if version is None:
            continue
        quarantined = bad.rows if bad else 0
        name = (
            f"observations/{names.model}/summaries/{table}/"
            f"{key}-{version.digest[:16]}-{quarantined}-{declared.fingerprint[:8]}.json"
        )
        kept = store.read_named(name)
        if kept is None:
            columns = list(declared.columns)
            summary = summarise(store.read(version, columns), declared, quarantined=quarantined)
            store.write_named(name, as_json(summary))
        else:
            summary = TableSummary.model_validate_json(kept)
        found[table] = summary
    return found
