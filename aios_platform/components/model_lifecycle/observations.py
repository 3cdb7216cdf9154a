"""What the monitoring assets gather for one window: performance and drift."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.deciding import champion_to_watch
from aios_platform.components.model_lifecycle.documents import as_json, write_document
from aios_platform.components.model_lifecycle.handoff import TrainingSet, recall
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.references import (
    reference_folder,
    training_bins,
)
from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.windows import Window
from aios_platform.database import Database
from aios_platform.settings import settings

if TYPE_CHECKING:
    import pyarrow as pa

    from aios_platform.monitoring.drift import DriftReport
    from aios_platform.monitoring.performance import Performance

# Rows of the champion's training data that its own probabilities are binned on, and that the
# drift page samples from: enough for stable deciles, cheap to score.
REFERENCE_ROWS = 30_000


def measure_window(
    names: Names, store: ArtifactStore, window: Window, as_of: datetime
) -> "Performance":
    """Performance of the window's current predictions, written beside earlier measurements."""
    from aios_platform.monitoring.performance import measure

    declaration = names.declaration
    source, label = declaration.source, declaration.label
    raw = store.require(names.raw_rows, window.key)
    result = measure(
        model=names.model,
        window=window,
        predictions=store.read(
            store.require(names.predictions, window.key),
            [source.row_id, "probability", "model_version"],
        ),
        truth=store.read(raw, [source.row_id, label.column, label.known_at]),
        row_id=source.row_id,
        label=label,
        metric=declaration.gate.metric,
        as_of=as_of,
        confidence=declaration.gate.confidence,
    )
    write_document(names, store, "performance", window.key, result)
    return result


def observe_drift(
    names: Names, store: ArtifactStore, database: Database, window: Window, *, page: bool
) -> "tuple[DriftReport, dict[str, Any]]":
    """Drift of the window against the champion's training data, and links to its page.

    A page costs seconds, so a run over many windows asks for that of the newest only; a drifted
    window gets one in any case.
    """
    from aios_platform.monitoring.drift import DriftStatus, detect

    declaration = names.declaration
    champion = champion_to_watch(names, database)
    reference = Reference(names, store, champion)
    predictions = store.require(names.predictions, window.key)
    frame = store.read(store.require(names.frames, window.key))
    result = detect(
        model=names.model,
        window=window.key,
        frame=frame,
        reference=reference.bins,
        monitoring=declaration.monitoring,
        predictions=store.read(predictions, ["probability"]),
        prediction_reference=reference.prediction_bins,
    )
    write_document(names, store, "drift", window.key, result)
    links: dict[str, Any] = {}
    if page or result.status is DriftStatus.DRIFTED:
        links = _page(names, store, champion, reference, frame, result)
    return result, links


def _page(
    names: Names,
    store: ArtifactStore,
    champion: Champion,
    reference: "Reference",
    frame: "pa.Table",
    result: "DriftReport",
) -> dict[str, Any]:
    from aios_platform.monitoring.report import drift_page

    order = {name: place for place, name in enumerate(result.drifted)}
    fields = sorted(
        reference.training_set.features.fields, key=lambda f: order.get(f.name, len(order))
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
    path = f"{names.model}/drift/{result.window}-version-{champion.version}.html"
    store.write_named(f"reports/{path}", page.html)
    return {
        "report": dg.MetadataValue.url(f"{settings().reports_url}/{path}"),
        "report_file": dg.MetadataValue.path(store.uri_of(f"reports/{path}")),
    }


class Reference:
    """The champion's training data, binned once and kept under its digest."""

    def __init__(self, names: Names, store: ArtifactStore, champion: Champion) -> None:
        self._store = store
        self._champion = champion
        self._folder = reference_folder(names.model, champion.training_set_digest)
        self.training_set: TrainingSet = recall(store, names.model, champion.training_set_digest)

    @property
    def bins(self) -> Any:
        """Bins of every feature over all training rows."""
        return training_bins(self._store, self._champion.model, self.training_set)

    @property
    def prediction_bins(self) -> Any:
        """Bins of the champion's own probabilities on the sample."""
        import pyarrow as pa

        from aios_platform.inference.session import Session
        from aios_platform.monitoring.drift import prediction_bins
        from aios_platform.monitoring.psi import ReferenceBins

        name = f"{self._folder}/predictions-{self._champion.model_digest}.json"
        content = self._store.read_named(name)
        if content is None:
            session = Session(
                self._store.get(self._champion.model_digest, ".onnx"),
                digest=self._champion.model_digest,
            )
            scores = session.predict(self.sample)
            bins = prediction_bins(pa.chunked_array([pa.array(scores)]))
            self._store.write_named(name, as_json(bins))
            return bins
        return ReferenceBins.model_validate_json(content)

    @property
    def sample(self) -> "pa.Table":
        """The same rows of the training data every time, at most `REFERENCE_ROWS`."""
        from aios_platform.monitoring.report import sample

        dataset = f"{self._folder}/sample"
        kept = self._store.current(dataset, "rows")
        if kept is not None:
            return self._store.read(kept)
        names = list(self.training_set.features.names)
        table = self._store.scan(self.training_set.frames).to_table(columns=names)
        rows = sample(table, REFERENCE_ROWS).combine_chunks()
        self._store.write(dataset, "rows", rows)
        return rows
