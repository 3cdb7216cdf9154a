"""Commands that answer where a model comes from, why it is live, and whom a change concerns."""

from typing import TYPE_CHECKING, Annotated

import typer

from aios_platform.cli.arguments import Model, names_of

if TYPE_CHECKING:
    from aios_platform.components.model_lifecycle.following import Followed

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for a machine.")]
NOT_REPRODUCED = 2
LONGEST = 60


def reproduce(
    model: Model,
    version: Annotated[str, typer.Argument(help="Registered version.")],
    as_json: AsJson = False,
) -> None:
    """Train a version again from its recorded windows, declaration and seed, and compare.

    It is reproduced when the training set, assembled again, has the recorded digest, and the new
    ONNX model answers real rows within 1e-6 of the recorded one. What differs (source files,
    libraries, data delivered again) is named. The result becomes a row of the ledger. Exit
    status 2: not reproduced.
    """
    from aios_platform.components.model_lifecycle.reproduction import note_reproduction
    from aios_platform.components.model_lifecycle.reproduction import reproduce as run
    from aios_platform.resources.stores import Stores

    stores = Stores()
    found = run(names_of(model), version, stores)
    note_reproduction(stores.database, found)
    if as_json:
        print(found.model_dump_json())
    else:
        verb = "was reproduced" if found.reproduced else "was NOT reproduced"
        print(f"{model} version {version} {verb}, in {found.seconds:.0f} s of training.")
        print(f"  training set   {'same digest' if found.same_training_set else 'other rows'}")
        print(
            f"  answers        largest difference {found.largest_difference:.2g} on "
            f"{found.rows:,} rows; the file is {'the same' if found.same_bytes else 'another'}"
        )
        for difference in found.differences:
            print(f"  differs        {difference.what}: recorded {difference.recorded[:24]}, "
                  f"now {difference.now[:24]}")  # fmt: skip
    if not found.reproduced:
        raise typer.Exit(NOT_REPRODUCED)


def follow(
    model: Model,
    row: Annotated[str, typer.Argument(help="Id of a row: a value of the declared row_id.")],
    version: Annotated[
        str | None, typer.Option(help="A trained version; without it, the live one.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Window of the row; without it, the newest that has it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow one row through a model: its source, features, answer and label.

    Each feature is shown with how much it moves the answer: the answer as it is, less the answer
    with that one feature missing. The answer is computed now, and held against the stored one.
    """
    from aios_platform.components.model_lifecycle.following import follow as run
    from aios_platform.resources.stores import Stores

    found = run(names_of(model), row, Stores(), version=version, window=window)
    print(found.model_dump_json() if as_json else _followed(found))


def _followed(found: "Followed") -> str:
    lines = [
        f"{found.model} version {found.version}, row {found.row} of window {found.window}, "
        f"predicted for {found.prediction_time:%Y-%m-%d %H:%M} UTC",
        "",
        "As it was delivered:",
        *(f"  {name:<28} {_shown(value)}" for name, value in found.source.items()),
        "",
        f"Features, those that move {found.asked} most first:",
        *(
            f"  {each.name:<28} {_shown(each.value):<24} {each.moves:+.4f}  {each.origin}"
            for each in found.features
        ),
        "",
        f"Answer now: {_answer(found.answer)}",
    ]
    if found.stored is None:
        lines.append("Stored answer: none; its window was not scored.")
    else:
        lines.append(f"Stored answer: {_answer(found.stored.answer)} by version "
                     f"{found.stored.version}")  # fmt: skip
    known = f", known at {found.known_at:%Y-%m-%d %H:%M} UTC" if found.known_at else ""
    lines.append(f"Label: {'not known' if found.label is None else found.label + known}")
    return "\n".join(lines)


def _shown(value: float | str | None) -> str:
    if isinstance(value, str):
        line = " ".join(value.split())
        return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
    return "-" if value is None else f"{value:.6g}"


def _answer(answer: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in answer.items())


def explain(
    row: Annotated[int, typer.Argument(help="Row of the ledger; `aios ledger show` lists them.")],
) -> None:
    """Say in plain words what a row of the ledger decided, and why."""
    from aios_platform.components.model_lifecycle.explanation import explain as words
    from aios_platform.database import database
    from aios_platform.ledger.entries import entry

    print(words(entry(database(), row)))


def impact(
    feature_view: Annotated[str, typer.Argument(help="Name of a Feast feature view.")],
    as_json: AsJson = False,
) -> None:
    """List the live models that read a feature view: whom a change to it concerns."""
    import json

    from aios_platform.components.model_lifecycle.discovery import declared_models
    from aios_platform.components.model_lifecycle.impact import readers_of
    from aios_platform.resources.stores import Stores

    readers = readers_of(feature_view, declared_models(), Stores())
    if as_json:
        print(json.dumps([reader.model_dump(mode="json") for reader in readers]))
        return
    for reader in readers:
        features = ", ".join(reader.features) or "through an on-demand view"
        print(f"{reader.model} version {reader.version} ({reader.owner}) by {reader.service}: "
              f"{features}")  # fmt: skip
    if not readers:
        print(f"No live model reads '{feature_view}'.")


def card(
    model: Model,
    version: Annotated[
        str | None, typer.Argument(help="Registered version; default: the champion.")
    ] = None,
) -> None:
    """Print the model card of a version's newest verdict: what, who, when, how good, where weak."""
    from aios_platform.components.model_lifecycle.cards import card_of
    from aios_platform.resources.stores import Stores

    print(card_of(names_of(model), version, Stores()))
