"""Command that brings a candidate to traffic step by step."""

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from aios_platform.cli.arguments import AsOf, Model, clock, names_of
from aios_platform.contracts.rollouts import RolloutMode, RolloutState

if TYPE_CHECKING:
    from aios_platform.components.model_lifecycle.names import Names
    from aios_platform.components.model_lifecycle.rollout_moves import Moved
    from aios_platform.contracts.rollouts import Rollout
    from aios_platform.resources.stores import Stores

PENDING_EXIT = 4


class Verb(StrEnum):
    """What to do with a rollout."""

    STATUS = "status"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ADVANCE = "advance"
    ABORT = "abort"


def rollout(
    model: Model,
    verb: Annotated[Verb, typer.Argument(help="What to do.")] = Verb.STATUS,
    version: Annotated[
        str | None, typer.Option(help="Registered version to start with; `aios train` prints it.")
    ] = None,
    mode: Annotated[
        RolloutMode, typer.Option(help="How much callers see of it.")
    ] = RolloutMode.CANARY,
    reason: Annotated[
        str, typer.Option(help="Why, for whoever reads the ledger later; all but status want it.")
    ] = "",
    as_of: AsOf = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for a machine.")
    ] = False,
) -> None:
    """Bring a version to traffic step by step, and see how it does.

    A shadow scores mirrored traffic, and callers see nothing of it. A canary answers a rising share
    of entities. Blue/green goes live at once and is taken back at the first fault. The daemon
    advances a rollout when the step's time and traffic are there and no guard stops it; `advance`
    does not wait for them. All but `status` need the role operator. Exit status: 0 done, 4 waits
    for an approval, 1 any error.
    """
    from aios_platform.resources.stores import Stores

    names, stores = names_of(model), Stores()
    if verb is Verb.STATUS:
        _show(names, stores, as_json)
        return
    moved = _move(names, stores, verb, version, mode, reason, as_of)
    standing = moved.standing
    if as_json:
        _print_json(
            standing.rollout, row=standing.ledger_row, message=moved.message, changed=moved.changed
        )
    else:
        print(moved.message)
    if standing.rollout.state is RolloutState.PENDING:
        raise typer.Exit(PENDING_EXIT)


def _move(
    names: "Names",
    stores: "Stores",
    verb: Verb,
    version: str | None,
    mode: RolloutMode,
    reason: str,
    as_of: str | None,
) -> "Moved":
    from aios_platform.components.model_lifecycle import rolling_out
    from aios_platform.errors import RolloutError

    if verb is Verb.START:
        if version is None:
            raise RolloutError(
                "A rollout starts with a version.", remedy="Give --version; `aios train` prints it."
            )
        return rolling_out.start(
            names, stores, version=version, mode=mode, reason=reason, as_of=clock(as_of)
        )
    moves = {
        Verb.PAUSE: rolling_out.pause,
        Verb.RESUME: rolling_out.resume,
        Verb.ADVANCE: rolling_out.advance,
        Verb.ABORT: rolling_out.abort,
    }
    return moves[verb](names, stores, reason=reason)


def _show(names: "Names", stores: "Stores", as_json: bool) -> None:
    from datetime import UTC, datetime

    from aios_platform.components.model_lifecycle.rollout_moves import look
    from aios_platform.ledger.rollouts import standing
    from aios_platform.promotion.rollout import next_move

    found = standing(stores.database, names.model)
    if found is None:
        print(json.dumps({"model": names.model, "rollout": None}) if as_json else
              f"{names.model} never had a rollout.")  # fmt: skip
        return
    current = found.rollout
    move = None
    if current.open:
        seen = look(names, stores.database, current, datetime.now(UTC))
        move = next_move(current, names.declaration.serving.rollout, seen)
    if as_json:
        _print_json(
            current, row=found.ledger_row, next=move.model_dump(mode="json") if move else None
        )
        return
    kind = current.mode.replace("_", "/")
    print(f"{names.model}: rollout {current.number}, {kind} of version {current.version} beside "
          f"{current.live_version}: {current.state}, since {current.step_since:%Y-%m-%d %H:%M} UTC "
          f"(row {found.ledger_row}, by {found.by}).")  # fmt: skip
    print(f"  {current.reason}")
    if move is not None:
        print(f"Next: {move.action}. {move.reason}")
    for name, value in (move or current).evidence.items():
        print(f"  {name.replace('_', ' '):22} {value:.6g}")


def _print_json(rollout: "Rollout", **more: object) -> None:
    record = {"model": rollout.model, "rollout": rollout.model_dump(mode="json"),
              "share": rollout.share, **more}  # fmt: skip
    print(json.dumps(record, default=str))
