"""Commands of event-driven inference: a worker that scores a queue, and the queue itself."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aios_platform.cli.arguments import Model

if TYPE_CHECKING:
    from aios_platform.serving.backlog import DeadLetter, QueueState


class Verb(StrEnum):
    """What to do with a queue."""

    STATUS = "status"
    PUT = "put"
    RESULT = "result"
    DEAD = "dead"
    RETRY = "retry"


def worker(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Declared models to score for.")
    ],
    once: Annotated[bool, typer.Option("--once", help="End when nothing is due any more.")] = False,
    concurrency: Annotated[
        int, typer.Option(min=1, max=10_000, help="Messages of a model scored at once.")
    ] = 64,
) -> None:
    """Score what arrives in the queues of models, until interrupted.

    Any number of workers may share a queue. What one holds when it is told to end (SIGTERM, Ctrl-C)
    it scores first; what a killed one held, another takes over. A database that goes away is
    waited for. `aios queue` shows how the queues stand.
    """
    from aios_platform.declarations import declaration_of
    from aios_platform.serving.queue_scorer import score_queues

    for model in models:
        declaration_of(model)
    scored = score_queues(list(dict.fromkeys(models)), once=once, concurrency=concurrency)
    print(f"Messages scored: {scored:,}.")


def queue(
    model: Model,
    verb: Annotated[Verb, typer.Argument(help="What to do.")] = Verb.STATUS,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Key of the message; may be repeated with `retry`. Default there: all."),
    ] = None,
    body: Annotated[
        Path | None, typer.Option(help="File with the JSON to put; default, standard input.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many dead letters.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")] = False,
) -> None:
    """Show and feed the queue that `aios worker` scores.

    `status` counts; `put` adds one message, a JSON object as a predict request has it, and the same
    key again has no second effect; `result` shows what came of a key, exit status 3 where nothing
    has yet; `dead` lists the messages that were given up, and `retry` puts them back. `put` and
    `retry` need the role operator.
    """
    from aios_platform.access.principals import Role, require
    from aios_platform.database import database
    from aios_platform.declarations import declaration_of
    from aios_platform.serving import backlog
    from aios_platform.serving.postgres_queue import PostgresQueue

    declaration_of(model)
    opened = database()
    if verb is Verb.STATUS:
        state = backlog.state_of(opened, model)
        print(state.model_dump_json() if as_json else _state(model, state))
    elif verb is Verb.PUT:
        require(Role.OPERATOR, database=opened)
        PostgresQueue(opened).put(model, _one(key), _object(body))
    elif verb is Verb.RESULT:
        result = backlog.result_of(opened, model, _one(key))
        if result is None:
            raise typer.Exit(3)
        print(result.model_dump_json() if as_json else json.dumps(result.answer, indent=2))
    elif verb is Verb.DEAD:
        for letter in backlog.dead_letters(opened, model, limit=limit):
            print(letter.model_dump_json() if as_json else _letter(letter))
    else:
        who = require(Role.OPERATOR, database=opened)
        back = backlog.retry(opened, model, key or None, by=who.name)
        print(json.dumps({"retried": back}) if as_json else f"Messages put back: {back:,}.")


def _one(key: list[str] | None) -> str:
    if not key or len(key) != 1:
        raise typer.BadParameter("name one key with --key")
    return key[0]


def _object(file: Path | None) -> dict[str, Any]:
    try:
        read = json.loads(file.read_text() if file is not None else sys.stdin.read())
    except (OSError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"the body cannot be read as JSON: {error}") from None
    if not isinstance(read, dict):
        raise typer.BadParameter("the body is not a JSON object")
    return read


def _state(model: str, state: "QueueState") -> str:
    oldest = f", the oldest put at {state.oldest:%Y-%m-%d %H:%M:%S %Z}" if state.oldest else ""
    return (
        f"{model}: {state.waiting:,} due, {state.later:,} held or to be tried again{oldest}; "
        f"{state.scored:,} scored, {state.dead:,} dead."
    )


def _letter(letter: "DeadLetter") -> str:
    return f"{letter.died_at:%Y-%m-%d %H:%M}  {letter.key:20} {letter.attempts:2} x  {letter.error}"
