"""The answers of the live model and of both yardsticks to the rows of one window."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.replays import Figure, Gain
from aios_platform.errors import LifecycleError, MetricError
from aios_platform.replay.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from aios_platform.inference.session import Session
    from aios_platform.monitoring.labels import Matched
    from aios_platform.monitoring.performance import Performance
    from aios_platform.resources.stores import Stores

# Enough for an interval to look at; the decisions have their own.
RESAMPLES = 400


class Answers:
    """Scores windows with the yardsticks and compares them with what the live model said.

    Args:
        names: The model.
        stores: Where everything is.
        champions: As `ledger.champions.history` gives them, newest first.
        progress: The replay.
    """

    def __init__(
        self, names: Names, stores: "Stores", champions: list[Champion], progress: Progress
    ) -> None:
        self._names, self._stores, self._progress = names, stores, progress
        self._champions = champions
        self._sessions: dict[str, Session] = {}

    def of(
        self, key: str, found: "Performance", as_of: datetime | None
    ) -> dict[str, Figure | Gain | str | None]:
        """The figures of a window whose labels have matured, by the fields of `ReplayedWindow`.

        Args:
            key: The window.
            found: What was measured of the version that scored it first.
            as_of: Labels that became known later are not looked at.

        Raises:
            LifecycleError: The window's rows are not those that were scored.
        """
        version = found.model_versions[0]
        scorer = next((c for c in self._champions if c.version == version), None)
        if scorer is None or as_of is None:
            return {}
        live_from = scorer.live_from or scorer.promoted_at
        window = self._names.declaration.windows.window(key)
        if not found.metrics or found.low is None or found.high is None:
            return {"unmeasured": version if live_from <= window.end and found.matched else ""}
        own = Figure(
            version=version,
            trained_through=scorer.trained_through,
            value=found.metrics[found.metric],
            low=found.low,
            high=found.high,
        )
        if live_from > window.end:
            return {"afterwards": own}
        if not self._progress.yardsticks:
            return {"live": own}
        frame, matched = self._rows(key, version, as_of)
        first = self._champions[-1]
        never = self._scores(frame, matched, first.model_digest)
        every = self._every(window.end)
        scores = self._scores(frame, matched, every[0])
        return {
            "live": own,
            "never": self._figure(matched, never, first.version, first.trained_through),
            "every": self._figure(matched, scores, "", every[1]),
            "against_never": self._gain(matched, never),
            "against_every": self._gain(matched, scores),
        }

    def _every(self, moment: datetime) -> tuple[str, str]:
        """Digest of the yardstick that was there before a moment, and its last training window.

        Not one of that very moment: the loop scores a window first, and trains then.
        """
        done = [t for t in self._progress.every if t.clock < moment]
        if done:
            return done[-1].model_digest, done[-1].trained_through
        first = self._champions[-1]
        return first.model_digest, first.trained_through

    def _rows(self, key: str, version: str, as_of: datetime) -> "tuple[pa.Table, Matched]":
        """The frame that was scored, and which of its rows have a truth."""
        from aios_platform.monitoring.labels import match_labels

        declaration, store = self._names.declaration, self._stores.artifacts
        source, label = declaration.source, declaration.label
        scored = next(
            v
            for v in store.history(self._names.predictions, key)
            if v.inputs.get("model_version") == version
        )
        predictions = store.read(
            scored, [source.row_id, *declaration.answers.columns, "prediction_time"]
        )
        frame = next(
            (
                store.read(v)
                for v in store.history(self._names.frames, key)
                if scored.inputs.get(v.dataset) == v.digest
            ),
            None,
        )
        if frame is None or frame[source.row_id] != predictions[source.row_id]:
            raise LifecycleError(
                f"The feature frame that {key} was scored with is gone.",
                remedy="Restore the artifact root from a backup, or replay again.",
            )
        raw = store.require(self._names.raw_rows, key)
        truth = store.read(raw, [source.row_id, label.column, label.known_at])
        return frame, match_labels(
            key, predictions, truth, source.row_id, label, as_of, declaration.answers
        )

    def _scores(self, frame: "pa.Table", matched: "Matched", digest: str) -> "NDArray[np.float64]":
        from aios_platform.inference.session import Session
        from aios_platform.metrics.truth import judged

        if digest not in self._sessions:
            content = self._stores.artifacts.get(digest, ".onnx")
            self._sessions[digest] = Session(content, digest=digest)
        answered = self._sessions[digest].predict(frame)[matched.places].astype("float64")
        return judged(answered, self._names.declaration.task)

    def _figure(
        self, matched: "Matched", scores: "NDArray[np.float64]", version: str, through: str
    ) -> Figure | None:
        from aios_platform.resampling import metric_interval

        gate = self._names.declaration.gate
        try:
            found = metric_interval(
                gate.metric, matched.labels, scores, seed=0, confidence=gate.confidence,
                resamples=RESAMPLES, task=self._names.declaration.task,
            )  # fmt: skip
        except MetricError:
            return None
        return Figure(
            version=version,
            trained_through=through,
            value=found.estimate,
            low=found.low,
            high=found.high,
        )

    def _gain(self, matched: "Matched", scores: "NDArray[np.float64]") -> Gain | None:
        """How much better the live model was, with the interval of the paired difference."""
        from aios_platform.metrics import BINARY
        from aios_platform.metrics.truth import judged
        from aios_platform.promotion.statistics import delong
        from aios_platform.resampling import gain_interval

        gate, task = self._names.declaration.gate, self._names.declaration.task
        own = judged(matched.scores, task)
        try:
            if gate.metric == "roc_auc" and task == BINARY:
                found: Any = delong(matched.labels, own, scores, confidence=gate.confidence)
            else:
                found = gain_interval(
                    gate.metric, matched.labels, own, scores, seed=0,
                    confidence=gate.confidence, resamples=RESAMPLES, task=task,
                )  # fmt: skip
        except MetricError:
            return None
        return Gain(
            value=found.estimate,
            low=found.low,
            high=found.high,
            standard_error=found.standard_error,
        )
