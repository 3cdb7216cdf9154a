"""Command about rows on which a model abstained."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from aios_platform.cli.arguments import Model

if TYPE_CHECKING:
    from aios_platform.serving.reviews import Review


class Verb(StrEnum):
    """What to do with the review queue."""

    LIST = "list"
    SHOW = "show"
    DECIDE = "decide"


def reviews(
    model: Model,
    verb: Annotated[Verb, typer.Argument(help="What to do.")] = Verb.LIST,
    number: Annotated[
        int | None, typer.Argument(help="Number of the row; `list` shows it.")
    ] = None,
    positive: Annotated[
        bool | None, typer.Option("--positive/--negative", help="What the answer is.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the ledger later.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Also those that were decided.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines, for a machine to read.")
    ] = False,
) -> None:
    """List, show and decide rows on which a model abstained; those that wait longest come first.

    `decide` needs a number, --positive or --negative, and the role operator or approver. A decision
    stands, and is a row of the ledger: what the caller should have been told. It is no label; that
    comes from the source, as every label does.
    """
    from aios_platform.cli.arguments import names_of
    from aios_platform.database import database
    from aios_platform.serving import reviews as queue

    name = names_of(model).model
    if verb is Verb.LIST:
        found = queue.reviews(database(), name, open_only=not every, limit=limit)
        for review in found:
            print(review.model_dump_json() if as_json else _line(review))
        if not found and not as_json:
            print("No row." if every else "No row waits.")
        return
    if number is None:
        raise typer.BadParameter(f"`{verb}` needs the number of a row")
    if verb is Verb.SHOW:
        review = queue.review_of(database(), name, number)
        print(review.model_dump_json() if as_json else _page(review))
        return
    if positive is None:
        raise typer.BadParameter("`decide` needs --positive or --negative")
    review, row = queue.decide(database(), name, number, positive=positive, reason=reason)
    if as_json:
        print(review.model_dump_json())
    else:
        print(f"Row {number} is {_word(review)}, by {review.decided_by}: row {row} of the ledger.")


def _word(review: "Review") -> str:
    return "open" if review.decision is None else "positive" if review.decision else "negative"


def _line(review: "Review") -> str:
    return (
        f"{review.number:6}  {review.created_at:%Y-%m-%d %H:%M}  version {review.version:4} "
        f"{review.probability:.3f}  {_word(review):8}  {review.row_id or '(not named)':20} "
        f"{review.reason}"
    )


def _page(review: "Review") -> str:
    decided = f", by {review.decided_by}" if review.decided_by else ""
    width = max((len(name) for name in review.inputs), default=0)
    return "\n".join(
        [
            f"Row {review.number}: {review.model} version {review.version}",
            f"  state        {_word(review)}{decided}",
            f"  asked        {review.created_at:%Y-%m-%d %H:%M} UTC, request {review.request_id}, "
            f"place {review.place}",
            f"  row          {review.row_id or 'not named by the caller'}",
            f"  probability  {review.probability:.4f}",
            f"  because      {review.reason}",
            "  inputs",
            *(f"    {name:{width}}  {value}" for name, value in review.inputs.items()),
        ]
    )
