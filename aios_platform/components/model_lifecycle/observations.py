"""What the monitoring assets gather for one window: truth, drift, evidence, decision."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.handoff import TrainingSet, recall
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.references import (
    reference_folder,
    training_bins,
)
from aios_platform.components.model_lifecycle.state import (
    RETRAIN_DECISION,
    VERDICT,
    matured_keys,
)
from aios_platform.contracts.decisions import Champion, RetrainDecision
from aios_platform.contracts.windows import Window
from aios_platform.database import Database
from aios_platform.errors import LifecycleError
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import append, entries, payload_of
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
    store.write_named(_document(names, "performance", window), _json(result))
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
    champion = _champion(names, database)
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
    store.write_named(_document(names, "drift", window), _json(result))
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


def decide_on(
    names: Names, store: ArtifactStore, database: Database, window: Window, as_of: datetime
) -> RetrainDecision | None:
    """The decision on a matured window, as a row of the ledger; None while labels are missing."""
    from aios_platform.monitoring.drift import DriftReport
    from aios_platform.monitoring.performance import Performance
    from aios_platform.monitoring.retraining import RetrainEvidence, decide

    declaration = names.declaration
    if window.key not in matured_keys(declaration, as_of):
        return None
    champion = _champion(names, database)
    performance = Performance.model_validate_json(_read(names, store, "performance", window))
    drift = DriftReport.model_validate_json(_read(names, store, "drift", window))
    if performance.model_versions != (champion.version,):
        raise LifecycleError(
            f"The performance of {window.key} is that of version {performance.model_versions}, "
            f"not of the champion {champion.version}.",
            remedy="Score the window again with the live champion.",
        )
    age = _windows_between(names, champion.trained_through, window.key)
    decision = decide(
        model=names.model,
        window=window.key,
        metric=declaration.gate.metric,
        policy=declaration.retrain,
        evidence=RetrainEvidence(
            baseline=champion.baseline.get(declaration.gate.metric),
            observed=performance.metrics.get(declaration.gate.metric),
            low=performance.low,
            high=performance.high,
            age_windows=age,
            windows_since_training=_windows_since_training(names, database, window),
            drift_share=drift.share,
            drifted=drift.status == "drifted",
        ),
    )
    with database.begin() as connection:
        row = append(
            connection,
            kind=RETRAIN_DECISION,
            subject=names.model,
            payload={
                "version": champion.version,
                "decision": decision.model_dump(mode="json"),
                "performance": performance.model_dump(mode="json"),
                "drifted": list(drift.drifted),
            },
            key=f"{RETRAIN_DECISION}:{names.model}:{champion.version}:{window.key}",
        )
        # The first decision on a window stands; what is shown is what the ledger holds.
        return RetrainDecision.model_validate(payload_of(connection, row)["decision"])


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
            self._store.write_named(name, _json(bins))
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


def _champion(names: Names, database: Database) -> Champion:
    champion = champion_of(database, names.model)
    if champion is None:
        raise LifecycleError(
            f"{names.model} has no champion to watch.",
            remedy=f"Launch the job '{names.job('retrain')}' first.",
        )
    return champion


def _windows_since_training(names: Names, database: Database, window: Window) -> int | None:
    """Windows since the newest one that the last training could look at, refused or not."""
    last = entries(database, subject=names.model, kind=VERDICT, limit=1)
    examined = last[0].payload["verdict"]["exam_windows"] if last else []
    return _windows_between(names, examined[-1], window.key) if examined else None


def _windows_between(names: Names, earlier: str, later: str) -> int:
    count, key = 0, earlier
    while key < later:
        following = names.declaration.windows.shift(key, 1)
        if following is None:
            break
        key, count = following, count + 1
    return count


def _document(names: Names, kind: str, window: Window) -> str:
    return f"observations/{names.model}/{kind}/{window.key}.json"


def _read(names: Names, store: ArtifactStore, kind: str, window: Window) -> bytes:
    content = store.read_named(_document(names, kind, window))
    if content is None:
        raise LifecycleError(
            f"There is no {kind} of {names.model} for {window.key}.",
            remedy=f"Materialize the asset '{kind}' of that window first.",
        )
    return content


def _json(record: Any) -> bytes:
    return str(record.model_dump_json(indent=1)).encode()
