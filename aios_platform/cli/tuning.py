"""`aios tune`: the search that a declaration asks for."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aios_platform.cli.arguments import AsOf, Model, clock, names_of

if TYPE_CHECKING:
    from aios_platform.tuning.study import TrialResult


def tune(
    model: Model,
    as_of: AsOf = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for a machine.")
    ] = False,
) -> None:
    """Search training options on the training windows, as the declaration's `search` says.

    The exam is never looked at. A search that was stopped goes on where it was, as long as no
    further window has matured. It changes nothing: the best values are printed, to be declared.
    """
    from aios_platform.components.model_lifecycle.candidates import pin_training_set
    from aios_platform.components.model_lifecycle.tuning import best_of, run_search, search_of
    from aios_platform.features.leakage import refuse_leaks
    from aios_platform.resources.stores import Stores

    names = names_of(model)
    declared = search_of(names)
    stores = Stores()
    record, report = pin_training_set(names, stores, clock(as_of))
    refuse_leaks(report)
    if not as_json:
        print(f"{model}: {declared.trials} trials on {record.windows[0]} to {record.windows[-1]}, "
              f"of which the last {names.declaration.training.validation_windows} are held out; as "
              f"of {record.as_of}.")  # fmt: skip
    results: tuple[TrialResult, ...] = ()
    for found in run_search(names, record, stores):
        if not as_json:
            for result in found[len(results) :]:
                print(_line(result, best_of(found)), flush=True)
        results = found
    best = best_of(results)
    if as_json:
        said: Any = None if best is None else {"trial": best.number, "loss": best.loss,
                                               "values": dict(best.values)}  # fmt: skip
        print(json.dumps({"model": model, "trials": len(results), "best": said}))
        return
    if best is None:
        print("No trial came to its end; widen search.space, or lower the learning rates in it.")
    elif best.number == 0:
        print(f"Nothing was better than the declared values ({best.loss:.5f}).")
    else:
        print(f"Trial {best.number} is the best ({best.loss:.5f}; declared values "
              f"{_loss(results[0])}). To take it, declare:\n\n{_yaml(best)}")  # fmt: skip


def _line(result: "TrialResult", best: "TrialResult | None") -> str:
    values = ", ".join(f"{name} {_shown(value)}" for name, value in result.values.items())
    mark = "  <- best" if best is not None and best.number == result.number else ""
    return (
        f"trial {result.number:>3}  {result.state:<8}  {_loss(result)}  {result.seconds:6.1f} s  "
        f"{values}{mark}"
    )


def _loss(result: "TrialResult") -> str:
    return f"{result.loss:.5f}" if result.state == "complete" else "      -"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _yaml(best: "TrialResult") -> str:
    import yaml

    training: dict[str, Any] = {}
    for name, value in best.values.items():
        section, _, option = name.rpartition(".")
        (training.setdefault(section, {}) if section else training)[option] = value
    return str(yaml.safe_dump({"training": training}, sort_keys=False, default_flow_style=None))
