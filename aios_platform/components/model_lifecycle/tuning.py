"""The search that a declaration asks for: trials on the training windows, never on the exam."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.candidates import training_frame
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.datasets import TrainingSet
from aios_platform.contracts.record import digest_of
from aios_platform.contracts.search import Search, declared_value, with_values
from aios_platform.errors import LifecycleError, TrainingDiverged
from aios_platform.settings import settings

if TYPE_CHECKING:
    from aios_platform.contracts.models import Epoch
    from aios_platform.registry.search_runs import SearchRuns
    from aios_platform.resources.stores import Stores
    from aios_platform.training.trials import Trials
    from aios_platform.tuning.study import OpenTrial, TrialResult

SEARCH = "search"


class _Pruned(Exception):
    """Ends a training from within."""


def search_of(names: Names) -> Search:
    """What the declaration says is to be searched.

    Raises:
        LifecycleError: It says nothing.
    """
    declared = names.declaration.search
    if declared is None:
        raise LifecycleError(
            f"{names.model} declares no search.",
            remedy="Declare search.trials and search.space (docs/how-to/tune.md).",
        )
    return declared


def run_search(
    names: Names, record: TrainingSet, stores: "Stores"
) -> "Iterator[tuple[TrialResult, ...]]":
    """Try what is left to try on a pinned training set; all results after each trial.

    The exam of the set is not read. A call that was killed is finished by the same call; where
    nothing is left, the results are given once. At the end the ledger has a row.

    Args:
        names: The model.
        record: What to train on.
        stores: Where everything is.

    Raises:
        AccessDenied: Who acts may not train.
        LifecycleError: Nothing is declared, or another search of the model is at work.
        TrainingError: The rows cannot be trained on.
        RegistryError: MLflow refused.
        StoreError: A store cannot be reached or written.
    """
    from aios_platform.access.principals import require
    from aios_platform.training.trials import Trials
    from aios_platform.tuning.study import Study

    declared, declaration = search_of(names), names.declaration
    require("author", "operator", database=stores.database)
    name = study_name(names, record)
    workdir = settings().home_path / "training" / names.model / f"search-{name[:16]}"
    with stores.database.exclusive(f"tune {names.model}") as mine:
        if not mine.held:
            raise LifecycleError(
                f"Another `aios tune {names.model}` is at work here.",
                remedy="Wait for its end; the same command then does what is left.",
            )
        study = Study(stores.database, name, names.model, declared, declaration.training)
        runs = stores.registry.search_runs(
            names.model, name, {"aios.training_set_digest": record.digest}
        )
        results = tuple(study.results())
        for ended in results:
            _show(runs, ended)
        trials = Trials(
            record.features,
            training_frame(stores.artifacts, record),
            label=declaration.label.column,
            answers=declaration.answers,
            workdir=workdir,
        )
        while (trial := study.take()) is not None:
            _try(trial, trials, names)
            known, results = len(results), tuple(study.results())
            for ended in results[known:]:
                _show(runs, ended)
            yield results
        best = best_of(results)
        if best is not None:
            runs.close(best.values, best.loss)
        _note(names, record, name, results, runs.parent, stores)
        yield results


def study_name(names: Names, record: TrainingSet) -> str:
    """SHA-256 (hex) of everything that a trial's loss depends on, but for its values.

    Args:
        names: The model.
        record: What is trained on.
    """
    import torch

    from aios_platform.training.networks import network_source

    declaration = names.declaration
    search = search_of(names)
    return digest_of(
        [
            names.model,
            [frame.digest for frame in record.frames],
            record.sample,
            record.features.fingerprint,
            declaration.answers.fingerprint,
            declaration.label.column,
            declaration.training.fingerprint,
            search.model_dump(mode="json", exclude={"trials"}),
            network_source(declaration.training.network),
            torch.__version__,
        ]
    )


def best_of(results: "tuple[TrialResult, ...]") -> "TrialResult | None":
    """The complete trial with the least loss, the first of equals; None: there is none."""
    complete = [result for result in results if result.state == "complete"]
    return min(complete, key=lambda result: (result.loss, result.number), default=None)


def _try(trial: "OpenTrial", trials: "Trials", names: Names) -> None:
    begun = time.perf_counter()
    training = with_values(names.declaration.training, trial.values)

    def report(epoch: "Epoch") -> None:
        if not trial.report(epoch.epoch, trials.criterion(epoch)):
            raise _Pruned

    try:
        epochs = trials.train(training, report)
    except _Pruned:
        trial.prune(time.perf_counter() - begun)
    except TrainingDiverged:
        trial.prune(time.perf_counter() - begun, diverged=True)
    else:
        losses = [trials.criterion(epoch) for epoch in epochs]
        trial.complete(min(losses), time.perf_counter() - begun)
    trials.forget(training)


def _show(runs: "SearchRuns", ended: "TrialResult") -> None:
    runs.record(
        ended.number, state=ended.state, values=ended.values, losses=ended.losses,
        seconds=ended.seconds,
    )  # fmt: skip


def _note(
    names: Names,
    record: TrainingSet,
    name: str,
    results: "tuple[TrialResult, ...]",
    run_id: str,
    stores: "Stores",
) -> None:
    from aios_platform.ledger.entries import append

    best = best_of(results)
    declared, states = results[0], [result.state for result in results]
    training, space = names.declaration.training, search_of(names).space
    payload = {
        "study": name,
        "trials": len(results),
        "states": {state: states.count(state) for state in sorted(set(states))},
        "declared": {option: declared_value(training, option) for option in space},
        "declared_loss": declared.loss if declared.state == "complete" else None,
        "best": dict(best.values) if best else None,
        "best_trial": best.number if best else None,
        "best_loss": best.loss if best else None,
        "training_set_digest": record.digest,
        "mlflow_run": run_id,
    }
    with stores.database.begin() as connection:
        append(
            connection,
            kind=SEARCH,
            subject=names.model,
            payload=payload,
            key=f"search:{names.model}:{name}:{len(results)}",
            evidence=[record.digest],
        )
