"""The words of a replay's report: the outcome in sentences, figures as people read them."""

import math
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise

from aios_platform.contracts.replays import Figure, Gain, Replay, ReplayedWindow, TrainingSummary
from aios_platform.errors import MetricError
from aios_platform.metrics import less_is_better

TIE = "\N{NO-BREAK SPACE}"
"""Keeps a figure and its unit on one line."""
UNMEASURED = "not measurable"
"""The live model's figure where its labels allow none."""
METRICS = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
    "ece_debiased": "calibration error",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R²",
    "macro_f1": "macro F1",
    **{f"precision_at_{p}": f"precision in the top {p}{TIE}%" for p in (1, 2, 5, 10)},
}
MEANINGS = {
    "roc_auc": "the chance that the model ranks a case that came true above one that did not: "
    "0.5 is guessing, 1 is perfect",
    "pr_auc": "how pure the top of the model's ranking is, over all cut-offs: the share of "
    "positives is guessing, 1 is perfect",
    "accuracy": "the share of answers that were right",
    **{
        f"precision_at_{p}": f"of the {p}{TIE}% of cases that the model finds most suspicious, "
        "the share that came true: 1 is perfect"
        for p in (1, 2, 5, 10)
    },
    "r2": "the share of the label's variance that the model explains: 0 is answering the mean, "
    "1 is perfect",
    "mae": "the mean distance between the predicted and the true value; 0 is perfect",
    "rmse": "the root of the mean squared distance between the predicted and the true value; "
    "0 is perfect",
    "log_loss": "how surprised the model is by what happens; 0 is perfect",
    "brier": "the mean squared distance between the predicted chance and what happened; "
    "0 is perfect",
}
CAUSES = {
    "data_fault": "the data are at fault",
    "degradation": "the metric got worse",
    "age": "the model is old",
    "new_data": "enough new data",
    "unconfirmed": "worse, not confirmed yet",
    "cool_down": "trained too recently",
    "back_off": "trainings have not helped",
    "budget": "budget of trainings spent",
    "no_evidence": "not enough evidence",
    "season": "drift of the season",
    "harmless_shift": "drift, but the metric holds",
    "superseded": "another version is live by now",
    "healthy": "healthy",
}
MOST_PLACES = 8
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
HUGE = 1e7


def metric_name(metric: str) -> str:
    """The metric as people write it."""
    return METRICS.get(metric, metric.replace("_", " "))


def better(metric: str) -> str:
    """Which way is better; a metric's package may not be installed here."""
    try:
        return "lower is better" if less_is_better(metric) else "higher is better"
    except MetricError:
        return "which way is better is not known here"


def pace(windows: Sequence[ReplayedWindow]) -> str:
    """How often a window comes: month, week, day, hour, or window where the keys do not say."""
    keys = [window.window for window in windows]
    if not keys:
        return "window"
    if all(len(key) == len("2013-01") and _day(f"{key}-01") for key in keys):
        return "month"
    if all(key[10:11] == "T" and _day(key[:10]) for key in keys):
        return "hour"
    days = [_day(key) for key in keys]
    steps = {(after - before).days for before, after in pairwise(d for d in days if d)}
    if None in days or not steps:
        return "window"
    return {7: "week", 1: "day"}.get(min(steps), "window")


def _day(key: str) -> date | None:
    try:
        return date.fromisoformat(key)
    except ValueError:
        return None


def span(replay: Replay) -> str:
    """From when to when, e.g. '2013' or '2013-02 to 2013-09'."""
    first, last = replay.first, replay.last
    if first == last:
        return first
    if (first[:4], first[4:], last[4:]) == (last[:4], "-01", "-12"):
        return first[:4]
    return f"{first} to {last}"


def places(replay: Replay) -> int:
    """Decimals that show four digits of the metric's usual size."""
    values = [abs(figure.value) for window in replay.windows for figure in figures(window)]
    largest = max(values, default=0.0)
    return 4 if not largest else min(max(3 - math.floor(math.log10(largest)), 0), 6)


def figures(window: ReplayedWindow) -> list[Figure]:
    """What was measured on a window."""
    found = (window.live, window.afterwards, window.never, window.every)
    return [figure for figure in found if figure is not None]


def number(value: float, digits: int = 4) -> str:
    """A figure with so many decimals, or more where it would vanish."""
    if abs(value) >= HUGE:
        return f"{value:.3e}".replace("-", MINUS)
    while value and digits < MOST_PLACES and not float(f"{value:.{digits}f}"):
        digits += 1
    # A figure that is still nothing then has no sign.
    shown = f"{float(f'{value:.{digits}f}') + 0.0:,.{digits}f}"
    return shown.replace("-", MINUS)


def signed(value: float, digits: int = 4) -> str:
    """A difference, with its sign."""
    return f"+{number(value, digits)}" if value > 0 else number(value, digits)


def percent(share: float) -> str:
    """A share between 0 and 1."""
    return f"{100 * share:.0f}{TIE}%" if not 0 < share < 0.01 else f"under 1{TIE}%"


def confidence(replay: Replay) -> str:
    """The confidence of the intervals, e.g. '95 %'."""
    return f"{100 * replay.confidence:.6g}{TIE}%"


def seconds(value: float) -> str:
    """A duration."""
    if value < 59.95:
        return f"{value:.1f}{TIE}s" if value else f"0{TIE}s"
    # Rounded first: no "59 min 60 s".
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{TIE}min {rest}{TIE}s"
    return f"{minutes // 60:,}{TIE}h {minutes % 60}{TIE}min"


def times(count: int) -> str:
    """How often."""
    return {0: "not once", 1: "once", 2: "twice"}.get(count, f"{count:,} times")


def counted(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    """Names in a row, e.g. 'a, b and c'."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def standing(gain: Gain) -> str:
    """The live model beside a yardstick: better, worse, no different, or identical."""
    if gain.low == gain.value == gain.high == 0:
        return "identical"
    if not gain.significant:
        return "no different"
    return "better" if gain.low > 0 else "worse"


def outcome(replay: Replay) -> str:
    """What the replay found, in two sentences a stranger understands."""
    when = span(replay)
    opening = f"From {when}" if " to " in when else f"In {when}"
    if not replay.windows:
        return f"{opening} there was no window to replay."
    if not has_champion(replay):
        return f"{opening} no version passed the gate, so no model was live."
    did = "did not train again" if not replay.trainings else f"trained {times(replay.trainings)}"
    after = "after its first version went live"
    clauses = [
        _clause(replay, replay.against_never, "one that was never retrained", ""),
        _clause(
            replay,
            replay.against_every,
            f"one retrained every {pace(replay.windows)}",
            f", which trained {times(replay.trainings_every)}",
        ),
    ]
    known = [clause for clause in clauses if clause]
    if not known:
        return (
            f"{opening} the platform {did} {after}. "
            "No window could be compared with a model that was never retrained."
        )
    return f"{opening} the platform {did} {after}. The live model was {', and '.join(known)}."


def _clause(replay: Replay, gain: Gain | None, whom: str, aside: str) -> str:
    """The live model against one yardstick; '' where they were not compared."""
    if gain is None:
        return ""
    digits, name, found = places(replay), metric_name(replay.metric), standing(gain)
    # In the direction of the sentence: "0.01 worse (0.005 to 0.015)".
    low, high = (-gain.high, -gain.low) if found == "worse" else (gain.low, gain.high)
    ends = f"{number(low, digits)} to {number(high, digits)}"
    if found == "identical":
        return f"as good as {whom}{aside}, to the last digit"
    if found == "no different":
        return (
            f"no different from {whom}{aside}, as far as these rows can tell "
            f"({signed(gain.value, digits)} {name}, {confidence(replay)} interval {ends})"
        )
    size = number(abs(gain.value), digits)
    return f"{size} {name} {found} than {whom}{aside} ({confidence(replay)} interval {ends})"


def has_champion(replay: Replay) -> bool:
    """Whether any version ever went live."""
    return any(
        window.live or window.afterwards or any(t.promoted for t in window.trainings)
        for window in replay.windows
    )


def capital(words: str) -> str:
    """With a capital at its beginning; the rest stays as it is."""
    return words[:1].upper() + words[1:]


def title_of(model: str, every: str) -> str:
    """A compared model in a few words.

    Args:
        model: live, never, every or afterwards.
        every: How often a window comes.
    """
    return {
        "live": "live model",
        "never": "never retrained",
        "every": f"retrained every {every}",
        "afterwards": "first champion, measured afterwards",
    }[model]


def cause(name: str) -> str:
    """A cause in words; what is no known name is a sentence already."""
    return CAUSES.get(name, name)


def fate(training: TrainingSummary) -> str:
    """What became of a training's candidate."""
    if training.promoted:
        return "went live"
    return {"reject": "refused", "inconclusive": "not taken: undecided"}.get(
        training.verdict, "accepted, but not live"
    )


def helped(training: TrainingSummary) -> str:
    """Whether a candidate that went live was better than the champion on the exam."""
    if not training.promoted:
        return ""
    if training.helped is None:
        return "the first champion"
    return "better on the exam" if training.helped else "no better on the exam"
