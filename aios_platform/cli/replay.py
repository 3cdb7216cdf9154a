"""Command that lives through a past stretch of windows again."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from aios_platform.cli.arguments import Model

if TYPE_CHECKING:
    from aios_platform.replay.drive import Moment

First = Annotated[
    str | None, typer.Option("--from", help="First window, e.g. 2013-01. Default: the schedule's.")
]
Last = Annotated[
    str | None, typer.Option("--to", help="Last window, e.g. 2013-12. Default: the last closed.")
]


def replay(
    model: Model,
    first: First = None,
    last: Last = None,
    yardsticks: Annotated[
        bool,
        typer.Option(
            help="Also train with every window, to compare with; the live model does not "
            "depend on it."
        ),
    ] = True,
) -> None:
    """Live through past windows with the clock of then: the real jobs, decisions and promotions.

    Each window comes, is validated, scored with the model that is live then, gets its labels
    later, is checked for drift and performance; the platform decides whether to train again, and
    the gate whether the result goes live. Nothing that became known later is looked at. At the end
    there is a page that holds the live model against one that is never trained again and one that
    is trained with every window.

    Safe to repeat: killed at any point, the same command goes on where it was. It needs a home in
    which the model has not lived yet (AIOS_HOME).
    """
    from aios_platform import telemetry
    from aios_platform.cli.arguments import code_location, names_of
    from aios_platform.replay import drive, results
    from aios_platform.replay.page import replay_page
    from aios_platform.replay.progress import read_progress, result_name
    from aios_platform.replay.summary import replay_summary
    from aios_platform.resources.stores import Stores
    from aios_platform.settings import settings

    names = names_of(model)
    schedule = names.declaration.windows
    closed = schedule.windows(datetime.now(UTC))
    first = first or schedule.start.strftime(schedule.key_format)
    last = last or (closed[-1].key if closed else first)
    if settings().log_level.upper() == "INFO":
        # Each moment has a line of its own here; a line per stage would bury it.
        telemetry.configure("WARNING")
    definitions, instance, _, _ = code_location()
    stores = Stores()
    with instance:
        progress, moments = drive.begin(names, stores, first, last, yardsticks=yardsticks)
        print(
            f"{names.model}: {names.declaration.description or names.declaration.task}\n"
            f"Replay of {first} to {last}, {len(moments)} moments left; state in "
            f"{settings().home_path}\n",
            flush=True,
        )
        for moment in drive.drive(names, definitions, instance, stores, progress, moments):
            print(_line(moment), flush=True)
    progress = read_progress(stores.artifacts, names.model) or progress
    found = results.results(names, stores, progress, datetime.now(UTC))
    page = f"reports/{names.model}/replay/{progress.first}--{progress.last}.html"
    stores.artifacts.write_named(page, replay_page(found))
    stores.artifacts.write_named(result_name(names.model), found.model_dump_json(indent=1).encode())
    print(replay_summary(found, stores.artifacts.uri_of(page)))


def _line(moment: "Moment") -> str:
    """A moment in one line, and one more for each training."""
    tick = moment.tick
    what = [f"{', '.join(tick.closed)} came"] if tick.closed else []
    what += [f"labels of {', '.join(tick.matured)} complete"] if tick.matured else []
    text = [f"{tick.clock:%Y-%m-%d}  {'; '.join(what):38}"]
    for result in moment.results:
        made = {stage.name: stage.summary for stage in result.stages if not stage.skipped}
        if result.failure:
            text.append(f"{result.run.job} run FAILED: {result.failure.splitlines()[0][:80]}")
        elif "verdict" in made:
            text.append(f"trained: {made['verdict']}")
        elif "retrain_decision" in made:
            text.append(f"{made['performance']} | {made['retrain_decision']}")
        elif "predictions" in made:
            text.append(f"{made['predictions'].split(': ', 1)[-1]}")
    return " ".join([text[0], "; ".join(text[1:]), f"({moment.seconds:.1f} s)"])
