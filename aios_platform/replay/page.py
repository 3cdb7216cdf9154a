"""A replay as one HTML page that explains itself and needs nothing from outside."""

import base64
import hashlib
from collections.abc import Iterator

from aios_platform.contracts.replays import Gain, Replay
from aios_platform.replay.drawing import Shape, inert, line, mark
from aios_platform.replay.plots import SERIES, metric_plot
from aios_platform.replay.story import happened, terms
from aios_platform.replay.strips import drift_plot, gain_plot
from aios_platform.replay.style import CSS
from aios_platform.replay.table import timeline
from aios_platform.replay.texts import (
    DASH,
    TIE,
    better,
    capital,
    confidence,
    counted,
    figures,
    metric_name,
    number,
    outcome,
    pace,
    places,
    seconds,
    signed,
    span,
    standing,
    title_of,
)


def replay_page(replay: Replay) -> bytes:
    """The report of a replay, UTF-8; equal replays give equal bytes.

    Text from outside is escaped. The page has no script, and its own content security policy
    forbids any: it allows its one style sheet and nothing else.
    """
    sections = [
        _head(replay),
        *_pictures(replay),
        _section("timeline", "Every step", _timeline(replay), "across"),
        _section("cost", "What it cost", _costs(replay)),
        _foot(replay),
    ]
    style = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    text = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{inert(_title(replay))}</title><style>{CSS}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )
    return text.encode()


def _title(replay: Replay) -> str:
    return f"{replay.model}: a replay of {span(replay)}"


def _head(replay: Replay) -> str:
    every = pace(replay.windows)
    question = f"The question: {inert(replay.description)}<br>" if replay.description else ""
    story = "".join(f"<li>{inert(sentence)}</li>" for sentence in happened(replay))
    legend = "".join(
        f"<div><dt>{inert(term)}</dt><dd>{inert(meaning)}</dd></div>"
        for term, meaning in terms(replay)
    )
    return (
        f'<header><p class="over">AIOS Platform</p><h1>{inert(_title(replay))}</h1>'
        f'<p class="about">{question}What the platform made of it when the data of '
        f"{inert(span(replay))} came again, {every} by {every}, with nothing known in advance.</p>"
        f'<p class="lead">{inert(outcome(replay))}</p></header>'
        f"{_tiles(replay)}"
        + _section("story", "What happened", f"<ul>{story}</ul>")
        + _section("terms", "How to read this page", f'<dl class="terms">{legend}</dl>')
    )


def _tiles(replay: Replay) -> str:
    """The four figures to remember."""
    every = pace(replay.windows)
    tiles = (
        _gain_tile(replay, replay.against_never, f"against {title_of('never', every)}"),
        _gain_tile(replay, replay.against_every, f"against {title_of('every', every)}"),
        _tile(
            f"{replay.trainings:,}",
            "trainings after the first version",
            f"retrained every {every}: {replay.trainings_every:,}",
        ),
        _tile(
            seconds(replay.training_seconds),
            "spent on training",
            f"retrained every {every}: {seconds(replay.training_seconds_every)}",
        ),
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _gain_tile(replay: Replay, gain: Gain | None, whom: str) -> str:
    if gain is None:
        return _tile(DASH, whom, "not compared")
    digits = places(replay)
    ends = f"{number(gain.low, digits)} to {number(gain.high, digits)}"
    over = counted(gain.windows, pace(replay.windows))
    note = f"{confidence(replay)} interval {ends}; mean of {over}"
    found = standing(gain)
    return _tile(signed(gain.value, digits), f"{metric_name(replay.metric)} {whom}", note, found)


def _tile(figure: str, what: str, note: str, verdict: str = "") -> str:
    chip = f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>' if verdict else ""
    return (
        f'<div class="tile"><p class="big">{inert(figure)} {chip}</p><p>{inert(what)}</p>'
        f'<p class="small">{inert(note)}</p></div>'
    )


def _section(name: str, title: str, body: str, style: str = "upright") -> str:
    heading = f'<h2 id="{name}">{inert(title)}</h2>'
    return f'<section class="{style}" aria-labelledby="{name}">{heading}{body}</section>'


def _pictures(replay: Replay) -> Iterator[str]:
    every, name = pace(replay.windows), metric_name(replay.metric)
    windows = replay.windows
    if not any(map(figures, windows)):
        return
    yield _section(
        "quality",
        f"How good the three models were, {every} by {every}",
        f"<p>{inert(capital(name))}; {better(replay.metric)}. The bars are {confidence(replay)} "
        "intervals; the thin line of an estimate is where the measured value was expected. All "
        "three models answered the same rows.</p>"
        + _key(replay)
        + _scrolled(name, metric_plot(replay)),
    )
    if any(window.against_never or window.against_every for window in windows):
        yield _gains(replay)
    if any(window.drift or window.faults for window in windows):
        yield _shift(replay)


def _gains(replay: Replay) -> str:
    return _section(
        "gains",
        "What the retraining was worth",
        "<p>The live model minus each yardstick on the same rows, which is more certain than "
        "either value alone. Above 0 the live model was better. A filled mark is a difference "
        "that its interval tells from 0; a hollow one may be chance.</p>"
        + _scrolled("differences", gain_plot(replay)),
    )


def _shift(replay: Replay) -> str:
    return _section(
        "shift",
        "How much the data changed",
        "<p>Share of the model's features whose values drifted from the data that the live "
        "version learnt from: all features alike, and weighted by their importance to the model. "
        f"The tall ground is 100 %. ●{TIE}drifted, ○{TIE}stable. A data fault is a change that "
        "only a broken feed explains.</p>" + _scrolled("drift", drift_plot(replay)),
    )


def _scrolled(name: str, svg: str) -> str:
    """A picture that a small screen scrolls; by keyboard, too."""
    label = f"Plot: {inert(name)}"
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{label}">{svg}</div>'


def _key(replay: Replay) -> str:
    """What the symbols of the main picture mean."""
    every = pace(replay.windows)
    entries = [
        (_symbol(series.shape, series.name), title_of(series.name, every))
        for series in sorted(SERIES, key=lambda series: series.name != "live")
    ]
    if any(window.afterwards for window in replay.windows):
        later = title_of("afterwards", every)
        entries.append((_icon(mark("circle", 11, 8, 5, "afterwards")), later))
    entries += [
        (_symbol("diamond", "hollow"), "estimate before the outcomes were known"),
        (_icon(line(11, 1, 11, 15, "went new")), "a new version went live"),
        (_icon(line(11, 1, 11, 15, "went refused")), "a new version was refused"),
    ]
    items = "".join(f"<li>{icon} {inert(words)}</li>" for icon, words in entries)
    return f'<ul class="key">{items}</ul>'


def _symbol(shape: Shape, style: str) -> str:
    through = "" if style == "hollow" else line(0, 8, 22, 8, f"way {style}")
    return _icon(through + mark(shape, 11, 8, 5, style))


def _icon(body: str) -> str:
    size = 'viewBox="0 0 22 16" width="22" height="16"'
    return f'<svg class="icon" {size} aria-hidden="true">{body}</svg>'


def _timeline(replay: Replay) -> str:
    if not replay.windows:
        return "<p>There was no window.</p>"
    return (
        f"<p>Oldest first. Below each value is its {confidence(replay)} interval. "
        f"“why” opens the reasons.</p>{timeline(replay)}"
    )


def _costs(replay: Replay) -> str:
    every = pace(replay.windows)
    arms = (
        (title_of("live", every), f"{replay.trainings:,}", seconds(replay.training_seconds)),
        (title_of("never", every), "0", seconds(0)),
        (
            title_of("every", every),
            f"{replay.trainings_every:,}",
            seconds(replay.training_seconds_every),
        ),
    )
    rows = "".join(
        f'<tr><th scope="row">{inert(arm[0].capitalize())}</th><td class="num">{arm[1]}</td>'
        f'<td class="num">{inert(arm[2])}</td></tr>'
        for arm in arms
    )
    return (
        '<table class="costs"><thead><tr><th scope="col">Model</th>'
        '<th scope="col">Trainings after the first version</th>'
        f'<th scope="col">Time for them</th></tr></thead><tbody>{rows}</tbody></table>'
        f"<p>The replay took {seconds(replay.seconds)} in {counted(replay.runs, 'run')} for "
        f"{counted(len(replay.windows), every)}: data checks, features, training, exams, "
        f"predictions, monitoring and decisions. The yardsticks were trained beside it in "
        f"{seconds(replay.yardstick_seconds)}, which production would not spend.</p>"
    )


def _foot(replay: Replay) -> str:
    rows = sorted(
        {
            *(window.decision.ledger_row for window in replay.windows if window.decision),
            *(each.ledger_row for window in replay.windows for each in window.trainings),
        }
    )
    model = inert(replay.model)
    ledger = (
        f"<p>Every decision and verdict is a row of the ledger, an append-only record: "
        f"{counted(len(rows), 'row')}, from {rows[0]} to {rows[-1]}.</p>"
        if rows
        else ""
    )
    return (
        f'<footer><h2>Where to look next</h2>{ledger}<ul class="next">'
        "<li><code>make ui</code> shows every run, asset and plot.</li>"
        f"<li><code>aios decisions {model}</code> lists the decisions with their evidence.</li>"
        f"<li><code>aios ledger show {model}</code> lists every row of the ledger.</li></ul>"
        f'<dl class="digests"><div><dt>Digest of the replay</dt><dd>{inert(replay.digest)}</dd>'
        "</div><div><dt>Digest of the declaration</dt>"
        f"<dd>{inert(replay.declaration_digest)}</dd></div></dl>"
        "<p>The first digest covers every decision, verdict and prediction: a replay that gives "
        "the same digest came to the same end. "
        f"Finished at {replay.finished_at:%Y-%m-%d %H:%M %Z}.</p></footer>"
    )
