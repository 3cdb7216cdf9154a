"""Searches a window's delivered tables for data faults, and knows which windows have one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.documents import (
    as_json,
    find_document,
    write_document,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.record import digest_of

if TYPE_CHECKING:
    from aios_platform.monitoring.faults import FaultReport
    from aios_platform.monitoring.summaries import TableSummary

FAULTS = "faults"
# Enough to see how much a window varies by itself; more would hide a season's turn.
HISTORY = 3
LOOK_BACK = 12


def search_faults(names: Names, store: ArtifactStore, key: str) -> "FaultReport":
    """Look for faults in a window, against the last ones without.

    The report is kept, and made anew when the window's tables or the declaration changed.
    """
    from aios_platform.monitoring.faults import FaultReport, find_faults

    declaration = names.declaration
    made_from = _made_from(names, store, key)
    kept = find_document(names, store, FAULTS, key, FaultReport)
    if kept is not None and kept.made_from == made_from:
        return kept
    report = find_faults(
        key,
        _summaries(names, store, key),
        {earlier: _summaries(names, store, earlier) for earlier in _history(names, store, key)},
        declaration.source.tables,
        max_quarantine_share=declaration.source.max_quarantine_share,
        exempt=declaration.monitoring.fault_exempt,
    ).model_copy(update={"made_from": made_from})
    write_document(names, store, FAULTS, key, report)
    return report


def without_faults(names: Names, store: ArtifactStore, keys: Sequence[str]) -> list[str]:
    """The windows without a data fault; no model is trained or examined on the others.

    Args:
        names: The model.
        store: The artifact root.
        keys: Windows that have rows, oldest first.
    """
    return [key for key in keys if not search_faults(names, store, key).faults]


def _made_from(names: Names, store: ArtifactStore, key: str) -> dict[str, str]:
    declaration = names.declaration
    found = {"exempt": digest_of(declaration.monitoring.fault_exempt)}
    for table in declaration.source.tables:
        for kind in ("raw", "quarantine"):
            version = store.current(f"{names.model}/{kind}/{table}", key)
            found[f"{kind}/{table}"] = version.digest if version else ""
    return found


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
