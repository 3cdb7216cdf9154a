"""One search as an Optuna study in our database: which values a trial takes, and what came of it.

Optuna's tables lie in a schema of their own, so that a backup of our database has them.
"""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from aios_platform.contracts.record import digest_of
from aios_platform.contracts.search import Dimension, Search, declared_value, is_integer
from aios_platform.contracts.training import Training
from aios_platform.database import Database

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SCHEMA = "optuna"
MODEL, DIVERGED, SECONDS, ATTEMPTS = "model", "diverged", "seconds", "attempts"
MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class TrialResult:
    """A trial that has ended.

    Attributes:
        number: 0 has the declared values.
        state: complete, pruned, diverged, or fail: every attempt was killed.
        values: What was tried, by option, as the declaration would say it.
        loss: Of the best epoch; infinite where the trial gave no usable network.
        losses: By epoch.
        seconds: What it took, without what a killed attempt took.
    """

    number: int
    state: str
    values: Mapping[str, Any]
    loss: float
    losses: Mapping[int, float]
    seconds: float


class Study:
    """A search that goes on where it was.

    Args:
        database: Where it is kept.
        name: Equal names are one study; a digest of everything that a loss depends on.
        model: Name of the model, for whoever reads the tables.
        search: The declared search.
        training: The declared training.
    """

    def __init__(
        self, database: Database, name: str, model: str, search: Search, training: Training
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name, self._search, self._training = name, search, training
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if search.pruner == "median":
            pruner = optuna.pruners.MedianPruner(n_startup_trials=search.startup_trials)
        self._study = optuna.create_study(
            storage=_storage(database), study_name=name, load_if_exists=True, pruner=pruner
        )
        self._study.set_user_attr(MODEL, model)

    def results(self) -> list[TrialResult]:
        """The trials that have ended, oldest first."""
        return [self._result(trial) for trial in self._trials() if trial.state.is_finished()]

    def take(self) -> "OpenTrial | None":
        """The trial that was killed, or the next one; None: all have ended.

        The values of a trial depend on the results before it and on its number alone, so a search
        that was killed proposes what it would have proposed.
        """
        import optuna

        self._give_up()
        trials = self._trials()
        ended = sum(trial.state.is_finished() for trial in trials)
        if ended >= self._search.trials:
            return None
        self._study.sampler = optuna.samplers.TPESampler(
            seed=int(digest_of([self._training.seed, ended])[:8], 16),
            n_startup_trials=self._search.startup_trials,
        )
        begun = [trial for trial in trials if trial.state is optuna.trial.TrialState.RUNNING]
        if begun:
            trial = optuna.Trial(self._study, begun[0]._trial_id)
        else:
            if not trials:
                self._study.enqueue_trial(self._declared(), skip_if_exists=True)
            trial = self._study.ask()
        trial.set_user_attr(ATTEMPTS, int(trial.user_attrs.get(ATTEMPTS, 0)) + 1)
        values = {name: _suggested(trial, name, d) for name, d in self._search.space.items()}
        return OpenTrial(self._study, trial, values)

    def _give_up(self) -> None:
        """End the trial that killed every attempt, e.g. since its network needs too much memory."""
        import optuna

        for trial in self._trials():
            running = trial.state is optuna.trial.TrialState.RUNNING
            if running and int(trial.user_attrs.get(ATTEMPTS, 0)) >= MOST_ATTEMPTS:
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def _declared(self) -> dict[str, Any]:
        values = {n: (declared_value(self._training, n), d) for n, d in self._search.space.items()}
        return {name: json.dumps(v) if d.choices else v for name, (v, d) in values.items()}

    def _trials(self) -> "list[FrozenTrial]":
        import optuna

        waiting = optuna.trial.TrialState.WAITING
        found = self._study.get_trials(deepcopy=False)
        return sorted((t for t in found if t.state is not waiting), key=lambda t: t.number)

    def _result(self, trial: "FrozenTrial") -> TrialResult:
        from optuna.trial import TrialState

        reported = [loss for loss in trial.intermediate_values.values() if math.isfinite(loss)]
        diverged = bool(trial.user_attrs.get(DIVERGED))
        usable = reported and not diverged and trial.state is not TrialState.FAIL
        return TrialResult(
            number=trial.number,
            state="diverged" if diverged else trial.state.name.lower(),
            values={
                name: json.loads(value) if self._search.space[name].choices else value
                for name, value in trial.params.items()
            },
            loss=min(reported) if usable else math.inf,
            losses=dict(sorted(trial.intermediate_values.items())),
            seconds=float(trial.user_attrs.get(SECONDS, 0.0)),
        )


class OpenTrial:
    """A trial under way.

    Attributes:
        number: 0 has the declared values.
        values: What to try, by option.
    """

    def __init__(self, study: Any, trial: "Trial", values: dict[str, Any]) -> None:
        self._study, self._trial = study, trial
        self.number, self.values = trial.number, values

    def report(self, epoch: int, loss: float) -> bool:
        """Note an epoch's loss; whether the trial is worth going on with."""
        known = self._study.get_trials(deepcopy=False)[self.number].intermediate_values
        # An epoch that was reported before a kill is trained again, and comes to the same.
        if epoch not in known:
            self._trial.report(loss, epoch)
        return not self._trial.should_prune()

    def complete(self, loss: float, seconds: float) -> None:
        """End it with the loss of its best epoch."""
        self._trial.set_user_attr(SECONDS, seconds)
        self._study.tell(self.number, loss)

    def prune(self, seconds: float, *, diverged: bool = False) -> None:
        """End it early: it is worse than others, or its loss is not finite."""
        from optuna.trial import TrialState

        self._trial.set_user_attr(SECONDS, seconds)
        if diverged:
            self._trial.set_user_attr(DIVERGED, True)
        self._study.tell(self.number, state=TrialState.PRUNED)


def _suggested(trial: "Trial", name: str, dimension: Dimension) -> Any:
    if dimension.choices:
        # Optuna keeps choices as plain values; lists are none.
        return json.loads(
            trial.suggest_categorical(name, [json.dumps(choice) for choice in dimension.choices])
        )
    low, high = dimension.low, dimension.high
    if low is None or high is None:
        raise ValueError(f"'{name}' has neither choices nor a range")
    if is_integer(name, dimension):
        return trial.suggest_int(name, int(low), int(high), log=dimension.log)
    return trial.suggest_float(name, low, high, log=dimension.log)


def _storage(database: Database) -> "BaseStorage":
    from optuna.storages import RDBStorage

    with database.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RDBStorage(
            database.url("aios"),
            engine_kwargs={
                "pool_size": 1,
                "pool_pre_ping": True,
                "connect_args": {"options": f"-csearch_path={SCHEMA}"},
            },
        )
