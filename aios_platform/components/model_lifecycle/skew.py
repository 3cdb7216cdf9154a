"""Skew of served traffic against the offline store: measured, and told."""

from datetime import datetime
from typing import TYPE_CHECKING

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.alarms import alarm, calm
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.alerts import AlertKind
from aios_platform.contracts.windows import Window

if TYPE_CHECKING:
    from feast import FeatureStore

    from aios_platform.database import Database
    from aios_platform.monitoring.served import ServedWindow
    from aios_platform.monitoring.skew import SkewReport


def measure_skew(
    names: Names,
    store: ArtifactStore,
    window: Window,
    traffic: "ServedWindow",
    feature_store: "FeatureStore",
) -> "SkewReport":
    """Served features against the offline ones of the same rows and moments, on a sample.

    Args:
        names: The model.
        store: The artifact root.
        window: The window.
        traffic: What one version answered of it.
        feature_store: The platform's Feast store.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from aios_platform.contracts.datasets import FeatureSchema, FieldKind
    from aios_platform.features.point_in_time import features_at
    from aios_platform.monitoring.sampling import sample
    from aios_platform.monitoring.served import ROW, last_answers
    from aios_platform.monitoring.skew import compare

    source, record = names.declaration.source, names.declaration.serving.record
    answers, inputs = last_answers(traffic)
    chosen = sample(pa.table({"at": pa.array(range(answers.num_rows))}), record.skew_rows)["at"]
    answers, inputs = answers.take(chosen), inputs.take(chosen)
    asked = pa.table(
        {source.row_id: answers[ROW], source.prediction_time: answers["prediction_time"]}
    )
    offline = features_at(names.declaration, window, asked, store, feature_store)
    # What the feature service no longer delivers has nothing to be compared with.
    # Vectors and texts are the caller's own, and are not computed twice.
    kinds = (FieldKind.NUMERICAL, FieldKind.CATEGORICAL)
    fields = tuple(
        f for f in traffic.features.fields if f.kind in kinds and f.name in offline.column_names
    )
    places = pc.index_in(offline[source.row_id], value_set=answers[ROW].combine_chunks())
    return compare(
        model=names.model,
        window=window.key,
        version=traffic.version,
        served=inputs.take(places),
        offline=offline,
        features=FeatureSchema(fields=fields),
        bound=record.skew_share,
    )


def tell_skew(
    names: Names, database: "Database", skew: "SkewReport", now: datetime, *, past: bool
) -> None:
    """Raise the alert that a skewed feature calls for, or take it back."""
    about = f"version {skew.version}"
    if skew.skewed:
        alarm(
            database, names.model, AlertKind.SERVING_SKEW, about,
            f"Version {skew.version}, window {skew.window}: {skew.reason}",
            now=now, past=past,
            evidence={
                "window": skew.window,
                "rows": skew.rows,
                **{
                    feature.name: {
                        "share": feature.share, "psi": feature.psi, "example": feature.example,
                    }
                    for feature in skew.skewed
                },
            },
        )  # fmt: skip
    elif skew.enough:
        calm(
            database, names.model, AlertKind.SERVING_SKEW, about,
            f"window {skew.window} shows none",
        )  # fmt: skip
