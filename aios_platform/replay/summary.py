"""A replay as the terminal shows it: the outcome, one line a window, what it cost."""

import io

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from aios_platform.contracts.replays import Figure, Replay, ReplayedWindow
from aios_platform.replay.texts import (
    UNMEASURED,
    counted,
    fate,
    metric_name,
    number,
    outcome,
    pace,
    places,
    seconds,
)

WIDTH = 110


def replay_summary(replay: Replay, page: str) -> str:
    """The end of `aios replay`.

    Args:
        replay: What was found.
        page: Where the report lies.
    """
    every = pace(replay.windows)
    totals = (
        f"{counted(len(replay.windows), every)}, {counted(replay.runs, 'run')} in "
        f"{seconds(replay.seconds)}; {counted(replay.trainings, 'training')} after the first "
        f"version, {seconds(replay.training_seconds)} of training.\n"
        f"Retrained every {every}: {counted(replay.trainings_every, 'training')}, "
        f"{seconds(replay.training_seconds_every)}, of which "
        f"{seconds(replay.yardstick_seconds)} beside the replay.\n"
        f"Digest {replay.digest}\n"
    )
    table = _table(replay) if replay.windows else ""
    return f"{_wrapped(outcome(replay))}\n{table}{totals}Report: {_plain(page)}\n"


def _table(replay: Replay) -> str:
    table = Table(
        title=Text(_plain(f"{metric_name(replay.metric)}, window by window")), title_justify="left"
    )
    table.add_column("window", no_wrap=True)
    table.add_column("live", no_wrap=True)
    table.add_column(Text(_plain(f"{metric_name(replay.metric)} [interval]")), no_wrap=True)
    table.add_column("never", justify="right", no_wrap=True)
    table.add_column("every", justify="right", no_wrap=True)
    table.add_column("drift", justify="right", no_wrap=True)
    table.add_column("decision", overflow="fold")
    table.add_column("trained", overflow="fold")
    for window in replay.windows:
        cells = _cells(window, places(replay))
        # As text: what stands in brackets is no markup.
        table.add_row(*(Text(_plain(cell)) for cell in cells))
    return _render(table)


def _cells(window: ReplayedWindow, digits: int) -> tuple[str, ...]:
    if window.missing:
        return (window.window, "", "", "", "", "", f"no data: {window.missing}", "")
    decision = window.decision
    return (
        window.window,
        _live(window),
        _metric(window, digits),
        _value(window.never, digits),
        _value(window.every, digits),
        _drift(window),
        f"{decision.action}: {decision.cause.replace('_', ' ')}" if decision else "",
        "; ".join(
            f"v{each.version} {'live' if each.promoted else fate(each)}"
            for each in window.trainings
        ),
    )


def _live(window: ReplayedWindow) -> str:
    version = window.live.version if window.live else window.unmeasured
    return f"v{version}" if version else "none"


def _metric(window: ReplayedWindow, digits: int) -> str:
    if window.live:
        figure = window.live
        ends = f"[{number(figure.low, digits)}, {number(figure.high, digits)}]"
        return f"{number(figure.value, digits)} {ends}"
    if window.afterwards:
        return f"{number(window.afterwards.value, digits)} afterwards"
    if window.unmeasured:
        return UNMEASURED
    return ""


def _drift(window: ReplayedWindow) -> str:
    """The share by importance where it is known; the figures of a faulty window say nothing."""
    if window.faults:
        return "fault"
    if window.drift is None:
        return ""
    weighted = window.drift.weighted_share
    share = window.drift.share if weighted is None else weighted
    return "" if share is None else f"{share:.0%}"


def _value(figure: Figure | None, digits: int) -> str:
    return "" if figure is None else number(figure.value, digits)


def _plain(words: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in words)


def _wrapped(words: str) -> str:
    return _render(Text(_plain(words)))


def _render(shown: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]
