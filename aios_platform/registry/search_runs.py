"""A search and its trials as nested MLflow runs, for people to look at and compare."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aios_platform.registry.backend import translated

if TYPE_CHECKING:
    from mlflow import MlflowClient

STUDY_TAG = "aios.search"
TRIAL_TAG = "aios.trial"
PARENT_TAG = "mlflow.parentRunId"


class SearchRuns:
    """The runs of one study. Each trial has one, whatever call was killed when.

    Args:
        client: MLflow's client.
        experiment_id: The model's experiment.
        study: Name of the study.
        tags: What the parent run says besides.

    Raises:
        RegistryError: MLflow refused.
    """

    def __init__(
        self, client: "MlflowClient", experiment_id: str, study: str, tags: Mapping[str, str]
    ) -> None:
        self._client, self._experiment_id, self._study = client, experiment_id, study
        with translated(f"open the runs of the search {study[:12]}"):
            self.parent = (
                self._find("parent")
                or client.create_run(
                    experiment_id,
                    run_name=f"search-{study[:8]}",
                    tags={STUDY_TAG: study, TRIAL_TAG: "parent", **tags},
                ).info.run_id
            )

    def record(
        self,
        number: int,
        *,
        state: str,
        values: Mapping[str, Any],
        losses: Mapping[int, float],
        seconds: float,
    ) -> None:
        """Write one trial that has ended; twice is as good as once.

        Args:
            number: Of the trial.
            state: complete, pruned or diverged.
            values: What was tried, by option.
            losses: Held-out loss by epoch.
            seconds: What it took.

        Raises:
            RegistryError: MLflow refused.
        """
        from mlflow.entities import Metric, Param

        with translated(f"record trial {number} of the search {self._study[:12]}"):
            run_id = self._find(str(number))
            if run_id is None:
                run_id = self._client.create_run(
                    self._experiment_id,
                    run_name=f"trial-{number}",
                    tags={
                        STUDY_TAG: self._study,
                        TRIAL_TAG: str(number),
                        PARENT_TAG: self.parent,
                        "aios.trial_state": state,
                    },
                ).info.run_id
            run = self._client.get_run(run_id)
            if run.info.status == "FINISHED":
                return
            at = run.info.start_time
            finite = {epoch: loss for epoch, loss in losses.items() if math.isfinite(loss)}
            metrics = [Metric("held_out_loss", loss, at, epoch) for epoch, loss in finite.items()]
            if finite:
                metrics.append(Metric("best_held_out_loss", min(finite.values()), at, 0))
            metrics.append(Metric("seconds", seconds, at, 0))
            self._client.log_batch(
                run_id,
                metrics=metrics,
                params=[Param(name, str(value)) for name, value in values.items()],
            )
            self._client.set_terminated(run_id)

    def close(self, values: Mapping[str, Any], loss: float) -> None:
        """End the parent run with the best values; twice is as good as once.

        Raises:
            RegistryError: MLflow refused.
        """
        from mlflow.entities import Metric, Param

        with translated(f"end the search {self._study[:12]}"):
            run = self._client.get_run(self.parent)
            if run.info.status == "FINISHED":
                return
            self._client.log_batch(
                self.parent,
                metrics=[Metric("best_held_out_loss", loss, run.info.start_time, 0)],
                params=[Param(f"best.{name}", str(value)) for name, value in values.items()],
            )
            self._client.set_terminated(self.parent)

    def _find(self, trial: str) -> str | None:
        found = self._client.search_runs(
            [self._experiment_id],
            f"tags.`{STUDY_TAG}`='{self._study}' and tags.`{TRIAL_TAG}`='{trial}'",
            max_results=1,
        )
        return str(found[0].info.run_id) if found else None
