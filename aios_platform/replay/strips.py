"""The smaller pictures of a replay: paired differences, and drift."""

from collections.abc import Callable, Iterator

from aios_platform.contracts.replays import DriftSummary, Gain, Replay, ReplayedWindow
from aios_platform.replay.drawing import (
    LEFT,
    Scale,
    Shape,
    Slots,
    box,
    drawing,
    hint,
    inert,
    line,
    mark,
    text,
)
from aios_platform.replay.plots import ENOUGH, axis, grounds, size_of, slots_of
from aios_platform.replay.texts import (
    DASH,
    confidence,
    metric_name,
    number,
    pace,
    percent,
    places,
    signed,
    standing,
    title_of,
)

PANEL, GAP, HEAD = 140.0, 46.0, 26.0
MEAN = 28.0
ROW = 70.0

Of = Callable[[ReplayedWindow], Gain | None]


def gain_plot(replay: Replay) -> str:
    """The live model minus each yardstick on the same rows, with intervals; an SVG."""
    windows = replay.windows
    slots = slots_of(windows)
    panels: tuple[tuple[str, Of, Gain | None], ...] = (
        ("never", lambda window: window.against_never, replay.against_never),
        ("every", lambda window: window.against_every, replay.against_every),
    )
    known = [
        gain for _, of, mean in panels for gain in (mean, *map(of, windows)) if gain is not None
    ]
    # Where nothing differed, the scale is that of what could be shown.
    least = 5 * 10.0 ** -places(replay)
    ends = [-least, least, *(end for gain in known for end in (gain.low, gain.value, gain.high))]
    body: list[str] = []
    for place, (name, of, mean) in enumerate(panels):
        top = HEAD + place * (PANEL + GAP)
        # One scale for both: the panels may be compared by eye.
        scale = Scale.around(ends, top, top + PANEL)
        body += _panel(replay, name, of, mean, slots, scale)
    height = HEAD + 2 * PANEL + GAP + 32
    body.append(slots.labels(height - 12))
    every = pace(windows)
    return drawing(
        "gain",
        inert(f"Difference of the live model in {metric_name(replay.metric)}"),
        inert(
            f"Upper panel: against a model never retrained. Lower panel: against one retrained "
            f"every {every}. Above the line at 0 the live model was better. "
            f"{confidence(replay)} intervals of paired differences."
        ),
        slots.width,
        height,
        "".join(body),
    )


def _panel(
    replay: Replay, name: str, of: Of, mean: Gain | None, slots: Slots, scale: Scale
) -> Iterator[str]:
    title = f"live model minus {title_of(name, pace(replay.windows))}"
    yield text(LEFT, scale.top - 9, inert(title), style="panel")
    yield from grounds(replay.windows, slots, scale.top, scale.bottom)
    yield axis(scale, slots, most=4, show=signed)
    yield line(LEFT, scale.y(0), slots.right, scale.y(0), "zero")
    for place, window in enumerate(replay.windows):
        gain = of(window)
        if gain is not None:
            yield _gain(replay, window.window, gain, slots.centre(place), size_of(slots), scale)
    if mean is not None:
        yield from _mean(replay, mean, slots, scale)


def _mean(replay: Replay, mean: Gain, slots: Slots, scale: Scale) -> Iterator[str]:
    """The mean, set apart at the right, with its figure."""
    x = slots.right + MEAN
    yield box(x - 16, scale.top, 32, scale.bottom - scale.top, "mean")
    yield line(x - 16, scale.y(0), x + 16, scale.y(0), "zero")
    yield _gain(replay, f"mean of {mean.windows}", mean, x, 6, scale)
    digits, middle = places(replay), (scale.top + scale.bottom) / 2
    ends = f"{number(mean.low, digits)} to {number(mean.high, digits)}"
    lines = (("mean", ""), (signed(mean.value, digits), "figure"), (ends, "share"))
    for place, (words, style) in enumerate((*lines, (standing(mean), ""))):
        yield text(x + 22, middle - 20 + 17 * place, words, style=style)


def _gain(replay: Replay, what: str, gain: Gain, x: float, size: float, scale: Scale) -> str:
    """One difference: filled where its interval leaves out 0, hollow where it does not."""
    digits, found = places(replay), standing(gain)
    words = (
        f"{what}: {signed(gain.value, digits)} "
        f"({number(gain.low, digits)} to {number(gain.high, digits)}), {found}"
    )
    style = "live" if gain.significant else "hollow live"
    ends = line(x, scale.y(gain.low), x, scale.y(gain.high), "interval live")
    shape: Shape = "diamond" if what.startswith("mean") else "circle"
    return hint(inert(words), ends + mark(shape, x, scale.y(gain.value), size, style))


def drift_plot(replay: Replay) -> str:
    """How much of the features drifted, as such and by their weight; data faults; an SVG."""
    windows = replay.windows
    slots = slots_of(windows)
    body: list[str] = []
    rows: tuple[tuple[str, str, Callable[[DriftSummary], float | None]], ...] = (
        ("all features", "plain", lambda drift: drift.share),
        ("by importance", "weighted", lambda drift: drift.weighted_share),
    )
    for place, (title, style, of) in enumerate(rows):
        bottom = (place + 1) * ROW
        body += _bars(replay, title, style, of, slots, bottom)
    y = 2 * ROW + 26
    body.append(text(LEFT - 8, y, "drifted", anchor="end"))
    body.append(text(LEFT - 8, y + 24, "data faults", anchor="end"))
    if not any(window.faults for window in windows):
        body.append(text(LEFT + 8, y + 24, "none"))
    for place, window in enumerate(windows):
        body += _signs(window, slots.centre(place), y)
    height = y + 58
    body.append(slots.labels(height - 8))
    return drawing(
        "drift",
        "Drift and data faults",
        inert(
            f"Per {pace(windows)}, the share of the features that drifted against the training "
            "data, and the same weighted by their importance to the model."
        ),
        slots.width,
        height,
        "".join(body),
    )


def _bars(
    replay: Replay,
    title: str,
    style: str,
    of: Callable[[DriftSummary], float | None],
    slots: Slots,
    bottom: float,
) -> Iterator[str]:
    yield text(LEFT - 8, bottom - 8, title, anchor="end")
    yield line(LEFT, bottom, slots.right, bottom, "grid")
    wide = min(slots.slot * 0.62, 34)
    for place, window in enumerate(replay.windows):
        share = None if window.drift is None else of(window.drift)
        x = slots.centre(place)
        if share is None:
            yield text(x, bottom - 4, DASH, style="soft", anchor="middle")
            continue
        whole = ROW - 22
        height = whole * min(max(share, 0.0), 1.0)
        bar = box(x - wide / 2, bottom - whole, wide, whole, "absent")
        bar += box(x - wide / 2, bottom - height, wide, height, f"bar {style}")
        if slots.slot >= ENOUGH:
            y = bottom - min(height + 4, whole - 12)
            inside = " inside" if height + 4 > whole - 12 and style == "weighted" else ""
            bar += text(x, y, percent(share), style=f"share{inside}", anchor="middle")
        yield hint(inert(f"{window.window}, {title}: {percent(share)} drifted"), bar)


def _signs(window: ReplayedWindow, x: float, y: float) -> Iterator[str]:
    status = window.drift.status if window.drift else ""
    if status == "drifted":
        yield hint(inert(f"{window.window}: drifted"), mark("circle", x, y - 4, 4, "sign"))
    elif status == "stable":
        yield hint(inert(f"{window.window}: stable"), mark("circle", x, y - 4, 4, "sign hollow"))
    if window.faults:
        words = f"{window.window}: {' '.join(window.faults)}"
        sign = mark("triangle", x, y + 20, 7, "fault") + text(
            x, y + 24, "!", style="bang", anchor="middle"
        )
        yield hint(inert(words), sign)
