"""The timeline of a replay as a table: every figure of every window, reasons folded away."""

from collections.abc import Callable, Iterable, Iterator

from aios_platform.contracts.replays import (
    DriftSummary,
    Figure,
    Gain,
    Replay,
    ReplayedWindow,
    TrainingSummary,
)
from aios_platform.replay.drawing import inert, short
from aios_platform.replay.texts import (
    DASH,
    UNMEASURED,
    capital,
    cause,
    fate,
    helped,
    listed,
    metric_name,
    number,
    pace,
    percent,
    places,
    seconds,
    signed,
    standing,
    title_of,
)

TOP_FEATURES = 3
LONGEST = 140
NOTHING = f'<span class="soft">{DASH}</span>'


def timeline(replay: Replay) -> str:
    """One row a window."""
    name, every = metric_name(replay.metric), pace(replay.windows)
    columns: tuple[tuple[str, Callable[[Replay, ReplayedWindow], str]], ...] = (
        (every.capitalize(), _window),
        ("Live version", _version),
        (capital(f"{name}, live"), _live),
        (title_of("never", every).capitalize(), _never),
        (title_of("every", every).capitalize(), _every),
        ("Drift", _drift),
        ("Decision", _decision),
        ("Training after it", _trainings),
        ("Took", lambda _, window: seconds(window.seconds)),
    )
    head = "".join(
        f'<th scope="col" role="columnheader">{inert(title)}</th>' for title, _ in columns
    )
    rows = []
    for window in replay.windows:
        cells = [_cell(title, cell(replay, window)) for title, cell in columns[1:]]
        rows.append(
            f'<tr role="row"><th scope="row" role="rowheader">{_window(replay, window)}</th>'
            f"{''.join(cells)}</tr>"
        )
    return (
        '<table class="timeline" role="table"><thead role="rowgroup"><tr role="row">'
        f'{head}</tr></thead><tbody role="rowgroup">{"".join(rows)}</tbody></table>'
    )


def _cell(title: str, body: str) -> str:
    # A small screen, which shows the cells below one another, leaves the empty ones out.
    style = ' class="empty"' if body == NOTHING else ""
    return f'<td role="cell"{style} data-label="{inert(title)}"><div>{body}</div></td>'


def _window(_: Replay, window: ReplayedWindow) -> str:
    text = f"<b>{inert(window.window)}</b>"
    if window.missing:
        return f"{text}{_small(f'no data: {window.missing}')}"
    text += _small(f"{window.rows:,} rows")
    if window.labelled != window.rows:
        text += _small(f"{window.labelled:,} labelled")
    return (
        text if window.base_rate is None else text + _small(f"{percent(window.base_rate)} positive")
    )


def _version(_: Replay, window: ReplayedWindow) -> str:
    if window.unmeasured:
        return f"<b>v{inert(window.unmeasured)}</b>"
    if window.live is None:
        return f'<span class="soft">{"none" if window.missing else "no champion yet"}</span>'
    return f"<b>v{inert(window.live.version)}</b>" + _through(window.live.trained_through)


def _live(replay: Replay, window: ReplayedWindow) -> str:
    if window.unmeasured:
        return f'<span class="soft">{UNMEASURED}</span>'
    if window.live is None:
        if window.afterwards is None:
            return NOTHING
        version = window.afterwards.version
        later = f"measured afterwards, by version {version}" if version else "measured afterwards"
        text = _figure(window.afterwards, places(replay)) + _small(later)
    else:
        text = f"<b>{_figure(window.live, places(replay))}</b>"
    return text + _expected(window, places(replay))


def _figure(figure: Figure, digits: int) -> str:
    ends = f"{number(figure.low, digits)} to {number(figure.high, digits)}"
    return f'<span class="num">{number(figure.value, digits)}</span>' + _small(ends)


def _expected(window: ReplayedWindow, digits: int) -> str:
    """The estimate, and whether it held."""
    found, measured = window.expectation, window.live or window.afterwards
    if found is None:
        return ""
    held = "✓ held" if found.inside else "✗ missed"
    if not found.inside and measured is not None:
        held = "✗ too high" if found.value > measured.value else "✗ too low"
    estimate = inert(f"estimate {number(found.value, digits)}")
    return f'<span class="small">{estimate}<br>{inert(held)}</span>'


def _never(replay: Replay, window: ReplayedWindow) -> str:
    return _beside(window.never, window.against_never, places(replay))


def _every(replay: Replay, window: ReplayedWindow) -> str:
    return _beside(window.every, window.against_every, places(replay))


def _beside(figure: Figure | None, gain: Gain | None, digits: int) -> str:
    """A yardstick's figure, and the live model's distance to it."""
    if figure is None:
        return NOTHING
    text = f'<span class="num">{number(figure.value, digits)}</span>'
    if gain is None:
        return text
    found = standing(gain)
    if found == "identical":
        return text + _small("live: identical")
    ends = f"{number(gain.low, digits)} to {number(gain.high, digits)}"
    return text + (
        f'<span class="small {found.replace(" ", "-")}">live: {found}<br>'
        f"{signed(gain.value, digits)}<br>{ends}</span>"
    )


def _drift(_: Replay, window: ReplayedWindow) -> str:
    faults = "".join(_alarm("data fault", fault) for fault in window.faults)
    drift = window.drift
    if drift is None:
        return faults or NOTHING
    return _status(drift) + _features(drift) + faults


def _status(drift: DriftSummary) -> str:
    status = inert(drift.status.replace("_", " "))
    shares = [
        f"{percent(share)} {of}"
        for share, of in ((drift.share, "of features"), (drift.weighted_share, "by importance"))
        if share is not None
    ]
    return f"{status}{_small(', '.join(shares)) if shares else ''}"


def _features(drift: DriftSummary) -> str:
    top, rest = drift.features[:TOP_FEATURES], drift.features[TOP_FEATURES:]
    if not top:
        return ""
    first = f'<span class="small">{_names(top)}</span>'
    if not rest:
        return first
    return first + _fold(f"{len(rest)} more", f"<p>{_names(rest)}</p>", style="more")


def _names(names: Iterable[str]) -> str:
    """Names of features, which may break where one reads a break."""
    return "".join(
        f'<span class="feature">{inert(name).replace("__", "__<wbr>")}</span>' for name in names
    )


def _decision(_: Replay, window: ReplayedWindow) -> str:
    alerts = "".join(_alarm("alert", alert) for alert in window.alerts)
    decision = window.decision
    if decision is None:
        return alerts or NOTHING
    retrain = decision.action == "retrain"
    word = "↻ train again" if retrain else "hold" if decision.action == "hold" else decision.action
    return (
        f'<span class="chip {"go" if retrain else "rest"}">{inert(word)}</span>'
        + _small(cause(decision.cause))
        + _fold("why", f"<p>{inert(decision.reason)}</p><p>Ledger row {decision.ledger_row}.</p>")
        + alerts
    )


def _trainings(_: Replay, window: ReplayedWindow) -> str:
    return "".join(map(_training, window.trainings)) or NOTHING


def _training(training: TrainingSummary) -> str:
    sign, style = ("✓", "good") if training.promoted else ("✕", "bad")
    facts = [
        f"Verdict: {training.verdict}.",
        f"Cause: {cause(training.cause)}.",
        f"Exam: {listed(training.exam)}." if training.exam else "",
        *training.reasons,
        f"{seconds(training.seconds)}; ledger row {training.ledger_row}.",
    ]
    return (
        f'<div class="training"><span class="chip {style}">{sign} v{inert(training.version)} '
        f"{inert(fate(training))}</span>"
        + _small(helped(training))
        + _through(training.trained_through)
        + _fold("why", "".join(_paragraphs(facts)))
        + "</div>"
    )


def _paragraphs(texts: Iterable[str]) -> Iterator[str]:
    return (f"<p>{inert(text)}</p>" for text in texts if text)


def _alarm(kind: str, words: str) -> str:
    text = f'<span class="small alarm">⚠ {kind}: {short(words, LONGEST)}</span>'
    return text if len(words) <= LONGEST else text + _fold("all of it", f"<p>{inert(words)}</p>")


def _through(window: str) -> str:
    return f'<span class="small">trained through<br>{inert(window)}</span>'


def _small(words: str) -> str:
    return f'<span class="small">{inert(words)}</span>' if words else ""


def _fold(title: str, body: str, style: str = "why") -> str:
    """Details that a reader may open; `body` is markup."""
    return f'<details class="{style}"><summary>{inert(title)}</summary>{body}</details>'
