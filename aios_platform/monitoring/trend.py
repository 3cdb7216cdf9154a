"""Drift over windows as a picture: which features moved, when, and whether the model felt it."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from aios_platform.monitoring.drift import DriftReport
    from aios_platform.monitoring.performance import Performance

MOST_FEATURES = 15
MOST_WINDOWS = 24
INK, BAD, FAINT = "#24292f", "#c62828", "#9aa0a6"


def trend_plot(
    reports: "Sequence[DriftReport]", performances: "Sequence[Performance]" = ()
) -> bytes | None:
    """Two panels over the windows: PSI of the features the model uses most, and its metric.

    Args:
        reports: Drift of each window, oldest first; the last `MOST_WINDOWS` are shown.
        performances: Measured windows; others leave a gap.

    Returns:
        A PNG; None where nothing was judged.
    """
    reports = list(reports)[-MOST_WINDOWS:]
    names = _features(reports)
    if not names:
        return None
    # Not pyplot: it keeps figures of one process alive, and asks for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 2.6 + 0.24 * len(names)
    width = 3.2 + 0.5 * max(5, len(reports))
    figure = Figure(figsize=(width, height), dpi=80)
    FigureCanvasAgg(figure)
    ratios = (1.4, 0.24 * len(names))
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": ratios})
    _metric(top, reports, performances)
    _heat(bottom, reports, names)
    figure.subplots_adjust(
        left=2.75 / width, right=0.97, top=0.93, bottom=1.0 / height, hspace=0.12
    )
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _features(reports: "Sequence[DriftReport]") -> list[str]:
    """What the newest champion uses most; where that is unknown, what drifted most."""
    if not reports:
        return []
    newest = [c for c in reports[-1].features if c.psi is not None]
    ranked = sorted(newest, key=lambda c: (-(c.importance or 0.0), -(c.psi or 0.0), c.name))
    return [column.name for column in ranked[:MOST_FEATURES]]


def _metric(
    axes: "Axes", reports: "Sequence[DriftReport]", performances: "Sequence[Performance]"
) -> None:
    places = {report.window: place for place, report in enumerate(reports)}
    known = [p for p in performances if p.window in places and p.metric in p.metrics]
    for found in known:
        place, value = places[found.window], found.metrics[found.metric]
        if found.low is not None and found.high is not None:
            axes.plot([place, place], [found.low, found.high], color=FAINT, lw=2)
        axes.plot([place], [value], "o", color=INK, ms=5)
        axes.annotate(
            f"{value:.3f}", (place, value), (5, 3), textcoords="offset points", size=8, color=INK
        )
    axes.set_title(
        f"{known[0].metric.replace('_', ' ')} of the live model" if known else
        "No window has matured yet", loc="left", size=10, color=INK,
    )  # fmt: skip
    axes.margins(y=0.3)
    axes.tick_params(labelsize=8, bottom=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _heat(axes: "Axes", reports: "Sequence[DriftReport]", names: list[str]) -> None:
    bound = reports[-1].features[0].bound
    values = np.full((len(names), len(reports)), np.nan)
    for column, report in enumerate(reports):
        found = {c.name: c.psi for c in report.features if c.psi is not None}
        values[:, column] = [found.get(name, np.nan) for name in names]
    axes.imshow(values, aspect="auto", cmap="YlOrRd", vmin=0, vmax=4 * bound)
    for (row, column), value in np.ndenumerate(values):
        if value > bound:
            # White where the ground is dark.
            colour = "white" if value > 2.5 * bound else INK
            text = f"{value:.1f}" if value < 99 else "99+"
            axes.text(column, row, text, ha="center", va="center", size=7, color=colour)
    weights = {c.name: c.importance for c in reports[-1].features}
    labels = [
        name if weights[name] is None else f"{name[:36]}  {weights[name] or 0.0:.0%}"
        for name in names
    ]
    axes.set_yticks(range(len(names)), labels, size=8)
    axes.set_xticks(
        range(len(reports)), [report.window for report in reports], size=8, rotation=45, ha="right"
    )
    axes.set_xlabel(
        f"PSI of the features the model uses most (numbers: above {bound:g})", size=8, loc="right"
    )
    axes.tick_params(length=0)
