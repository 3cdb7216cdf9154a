"""Drift of one window, its page, and the trend over windows."""

import base64
from typing import TYPE_CHECKING, Any

import dagster as dg

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.documents import (
    document_keys,
    find_document,
    read_document,
    write_document,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.references import Reference, earlier_window
from aios_platform.contracts.windows import Window
from aios_platform.settings import settings

if TYPE_CHECKING:
    import pyarrow as pa

    from aios_platform.monitoring.drift import DriftReport

EARLIER = "drift_against_earlier"


def observe_drift(
    names: Names, store: ArtifactStore, reference: Reference, window: Window, *, page: bool
) -> "tuple[DriftReport, dict[str, Any]]":
    """Drift of the window against the champion's training data, and what to show besides.

    A page costs seconds, so a run over many windows asks for that of the newest only; a drifted
    window gets one in any case.
    """
    from aios_platform.monitoring.drift import DriftStatus, detect, prediction_field

    declaration = names.declaration
    predictions = store.require(names.predictions, window.key)
    frame = store.read(store.require(names.frames, window.key))
    column = prediction_field(declaration.answers).name
    result = against_training(names, reference, window, frame, store.read(predictions, [column]))
    write_document(names, store, "drift", window.key, result)
    shown: dict[str, Any] = {}
    earlier = earlier_window(names, store, window.key, reference.training_set.features)
    if earlier is not None:
        other = detect(
            **_common(names, reference, window, frame),
            reference=earlier.bins,
            reference_sample=earlier.sample,
            compared_with=earlier.label,
        )
        write_document(names, store, EARLIER, window.key, other)
        shown[f"against_{declaration.monitoring.reference}"] = f"{other.reference}: {other.reason}"
    if page or result.status is DriftStatus.DRIFTED:
        shown |= _page(names, store, reference, frame, result)
    return result, shown


def against_training(
    names: Names,
    reference: Reference,
    window: Window,
    frame: "pa.Table",
    predictions: "pa.Table",
) -> "DriftReport":
    """Drift of some rows of a window, and of what was predicted of them."""
    from aios_platform.monitoring.drift import detect

    return detect(
        **_common(names, reference, window, frame),
        reference=reference.bins,
        reference_sample=reference.sample,
        predictions=predictions,
        prediction_reference=reference.prediction_bins,
    )


def _common(
    names: Names, reference: Reference, window: Window, frame: "pa.Table"
) -> dict[str, Any]:
    importance = reference.importance
    return {
        "model": names.model,
        "window": window.key,
        "frame": frame,
        "monitoring": names.declaration.monitoring,
        "importance": importance.weights if importance else None,
        "model_version": reference.champion.version,
    }


def trend(names: Names, store: ArtifactStore) -> dict[str, Any]:
    """Drift and performance over the last windows, as a picture."""
    from aios_platform.monitoring.drift import DriftReport
    from aios_platform.monitoring.performance import Performance
    from aios_platform.monitoring.trend import MOST_WINDOWS, trend_plot

    keys = document_keys(names, store, "drift")[-MOST_WINDOWS:]
    measured = (find_document(names, store, "performance", key, Performance) for key in keys)
    plot = trend_plot(
        [read_document(names, store, "drift", key, DriftReport) for key in keys],
        [found for found in measured if found is not None],
    )
    if plot is None:
        return {}
    image = base64.b64encode(plot).decode()
    return {"trend": dg.MetadataValue.md(f"![drift by window](data:image/png;base64,{image})")}


def _page(
    names: Names,
    store: ArtifactStore,
    reference: Reference,
    frame: "pa.Table",
    result: "DriftReport",
) -> dict[str, Any]:
    from aios_platform.monitoring.report import drift_page

    order = {name: place for place, name in enumerate(result.drifted)}
    important = {column.name: column.importance or 0.0 for column in result.columns}
    fields = sorted(
        reference.training_set.features.fields,
        key=lambda f: (order.get(f.name, len(order)), -important.get(f.name, 0.0)),
    )
    page = drift_page(
        frame=frame,
        reference=reference.sample,
        fields=fields,
        monitoring=names.declaration.monitoring,
        report=result,
    )
    if page is None:
        return {}
    path = f"{names.model}/drift/{result.window}-version-{reference.champion.version}.html"
    store.write_named(f"reports/{path}", page.html)
    return {
        "report": dg.MetadataValue.url(f"{settings().reports_url}/{path}"),
        "report_file": dg.MetadataValue.path(store.uri_of(f"reports/{path}")),
    }
