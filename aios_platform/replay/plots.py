"""The main picture of a replay: the metric of three models, window by window."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from aios_platform.contracts.replays import Figure, Replay, ReplayedWindow, TrainingSummary
from aios_platform.replay.drawing import (
    LEFT,
    Scale,
    Shape,
    Slots,
    box,
    cross,
    drawing,
    hint,
    inert,
    line,
    mark,
    path,
    text,
)
from aios_platform.replay.texts import (
    better,
    confidence,
    fate,
    figures,
    metric_name,
    number,
    pace,
    places,
    title_of,
)

TOP, BOTTOM, HEIGHT = 64.0, 372.0, 404.0
ENOUGH = 30.0
"""Width of a window from which on it can carry words."""


@dataclass(frozen=True)
class Series:
    """One of the compared models, and how it is drawn.

    Attributes:
        name: Style and word for it.
        shape: Its symbol; colour alone never tells.
        offset: Where it stands within a window, in steps from the middle.
        of: Its figure on a window.
    """

    name: str
    shape: Shape
    offset: float
    of: Callable[[ReplayedWindow], Figure | None]


SERIES = (
    Series("never", "triangle", -0.4, lambda window: window.never),
    Series("every", "square", 1.3, lambda window: window.every),
    Series("live", "circle", 0.45, lambda window: window.live),
)


def metric_plot(replay: Replay) -> str:
    """The metric with its intervals, what was expected, and when versions went live; an SVG."""
    windows = replay.windows
    slots = slots_of(windows)
    scale = Scale.around(_values(replay), TOP, BOTTOM)
    name = metric_name(replay.metric)
    body = [
        axis(scale, slots),
        slots.notches(BOTTOM),
        *grounds(windows, slots, TOP, BOTTOM),
        *_trainings(windows, slots),
        *_expectations(replay, slots, scale),
        *(part for series in SERIES for part in _series(replay, series, slots, scale)),
        *_afterwards(replay, slots, scale),
        *_names(replay, slots, scale),
        slots.labels(BOTTOM + 20),
    ]
    return drawing(
        "metric",
        inert(f"{name} per {pace(windows)}"),
        inert(
            f"{name} ({better(replay.metric)}) of the live model, of one that was never retrained "
            f"and of one retrained every {pace(windows)}, with {confidence(replay)} intervals. "
            "The table below has every figure."
        ),
        slots.width,
        HEIGHT,
        "".join(body),
    )


def slots_of(windows: Sequence[ReplayedWindow]) -> Slots:
    """The horizontal axis of all plots."""
    shown = [bool(figures(window) or window.drift or window.faults) for window in windows]
    blank = shown.index(True) if True in shown else 0
    return Slots(tuple(window.window for window in windows), blank)


def _values(replay: Replay) -> Iterator[float]:
    for window in replay.windows:
        for found in (window.live, window.never, window.every, window.afterwards):
            if found:
                yield from (found.low, found.value, found.high)
        if window.expectation and (window.live or window.afterwards):
            yield from (window.expectation.low, window.expectation.high)


def axis(
    scale: Scale, slots: Slots, most: int = 5, show: Callable[[float, int], str] = number
) -> str:
    """Values beside a plot, with lines across it."""
    digits = scale.decimals(most)
    return "".join(
        line(LEFT, scale.y(value), slots.right, scale.y(value), "grid")
        + text(LEFT - 8, scale.y(value) + 4, show(value, digits), anchor="end")
        for value in scale.ticks(most)
    )


def grounds(
    windows: Sequence[ReplayedWindow], slots: Slots, top: float, bottom: float
) -> Iterator[str]:
    """Shades for windows in which no model was live, saying why."""
    place = 0
    first = next((n for n, window in enumerate(windows) if window.live), len(windows))
    reasons = [_absence(window, n < first) for n, window in enumerate(windows)]
    for why, group in groupby(reasons):
        count = len(list(group))
        if why:
            left = slots.edge(place)
            width = slots.edge(place + count) - left
            shade = box(left, top, width, bottom - top, "absent")
            yield hint(inert(why), shade)
            if width > 7 * len(why) + 10:
                yield text(left + 10, bottom - 10, inert(why))
        place += count


def _absence(window: ReplayedWindow, before: bool) -> str:
    """Why a window shows no live model; '' where it does."""
    if window.live:
        return ""
    if window.missing:
        return "no data"
    return "no champion yet" if before else "not measured"


def _trainings(windows: Sequence[ReplayedWindow], slots: Slots) -> Iterator[str]:
    """A line where the labels of a window led to a training: between it and the next."""
    ends = {"new": 0.0, "refused": 0.0}
    for place, window in enumerate(windows):
        x = slots.edge(place + 1)
        for training in window.trainings:
            kind = "new" if training.promoted else "refused"
            y = 44.0 if training.promoted else 24.0
            words = _flag(training, slots.slot)
            parts = [line(x, y + 6, x, BOTTOM, f"went {kind}")]
            half = 3.4 * len(words)
            if x - half > ends[kind]:
                parts.append(text(x, y, inert(words), style=f"flag {kind}", anchor="middle"))
                ends[kind] = x + half
            if not training.promoted:
                parts.append(cross(x, y + 14, 4, "cross"))
            yield hint(inert(_about(window, training)), "".join(parts))


def _flag(training: TrainingSummary, slot: float) -> str:
    version = f"v{training.version[:8]}"
    if slot < ENOUGH:
        return version if training.promoted else f"✕ {version}"
    return f"{version} live" if training.promoted else f"✕ {version} {fate(training)}"


def _about(window: ReplayedWindow, training: TrainingSummary) -> str:
    reasons = " ".join(training.reasons[:3])
    return (
        f"After {window.window}: version {training.version}, trained through "
        f"{training.trained_through}, {fate(training)}. {reasons}"
    )


def _step(slots: Slots) -> float:
    return min(slots.slot * 0.2, 13.0)


def size_of(slots: Slots) -> float:
    """Size of a symbol."""
    return min(max(slots.slot * 0.1, 2.2), 5.0)


def _expectations(replay: Replay, slots: Slots, scale: Scale) -> Iterator[str]:
    digits = places(replay)
    for place, window in enumerate(replay.windows):
        found = window.expectation
        if found is None or not (window.live or window.afterwards):
            continue
        x = slots.centre(place) - 1.3 * _step(slots)
        y = scale.y(found.value)
        held = "what was measured lay inside" if found.inside else "what was measured lay outside"
        words = (
            f"{window.window}, estimate before the labels: {number(found.value, digits)} "
            f"({number(found.low, digits)} to {number(found.high, digits)}); {held}"
        )
        # Four lines side by side in a narrow window could not be told apart.
        roomy = slots.slot >= ENOUGH
        ends = line(x, scale.y(found.low), x, scale.y(found.high), "promise") if roomy else ""
        yield hint(inert(words), ends + mark("diamond", x, y, size_of(slots), "hollow"))


def _series(replay: Replay, series: Series, slots: Slots, scale: Scale) -> Iterator[str]:
    points: list[tuple[float, float]] = []
    marks: list[str] = []
    for place, window in enumerate(replay.windows):
        found = series.of(window)
        if found is None:
            yield path(points, f"way {series.name}")
            points = []
            continue
        x = slots.centre(place) + series.offset * _step(slots)
        points.append((x, scale.y(found.value)))
        marks.append(_figure(replay, window, found, series, x, size_of(slots), scale))
    yield path(points, f"way {series.name}")
    yield from marks


def _figure(
    replay: Replay,
    window: ReplayedWindow,
    found: Figure,
    series: Series,
    x: float,
    size: float,
    scale: Scale,
) -> str:
    digits = places(replay)
    version = f" (version {found.version})" if found.version else ""
    words = (
        f"{window.window}, {title_of(series.name, pace(replay.windows))}{version}, trained through "
        f"{found.trained_through}: {number(found.value, digits)} "
        f"({number(found.low, digits)} to {number(found.high, digits)})"
    )
    ends = line(x, scale.y(found.low), x, scale.y(found.high), f"interval {series.name}")
    return hint(inert(words), ends + mark(series.shape, x, scale.y(found.value), size, series.name))


def _afterwards(replay: Replay, slots: Slots, scale: Scale) -> Iterator[str]:
    later = Series("afterwards", "circle", 0.45, lambda window: window.afterwards)
    for place, window in enumerate(replay.windows):
        if window.afterwards:
            x = slots.centre(place) + later.offset * _step(slots)
            yield _figure(replay, window, window.afterwards, later, x, size_of(slots), scale)


def _names(replay: Replay, slots: Slots, scale: Scale) -> Iterator[str]:
    """The models' names beside their last figures, pushed apart where they would touch."""
    last: list[tuple[float, str]] = []
    for series in SERIES:
        found = [figure for figure in map(series.of, replay.windows) if figure]
        if found:
            last.append((scale.y(found[-1].value), series.name))
    previous = TOP - 18
    for y, name in sorted(last):
        previous = max(y + 4, previous + 18)
        words = inert(title_of(name, pace(replay.windows)))
        yield text(slots.right + 10, previous, words, style=f"name {name}")
